"""ADAPT: LoRA where peft would put it, or every weight."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Adapted, Loaded, ModelError, PluginError, RunError
from forge_huggingface.facts.adapter import CONFIG, WEIGHTS, start_of
from forge_huggingface.facts.folder import read_object, reading
from forge_huggingface.facts.safetensors import read_header
from forge_huggingface.hub.snapshot import adapter_snapshot
from forge_huggingface.model.adapt import adapted_names, add_lora
from forge_huggingface.model.start import tell

if TYPE_CHECKING:
    from forge.api import Job, Run
    from forge_huggingface.facts.adapter import Start


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Make the model trainable, as ``[adapter]`` says.

    Raises:
        ModelError: A name in ``[adapter]`` fits no module; the adapter to go on from does not fit the model.
    """
    from mlx.utils import tree_flatten

    module = loaded.model.module
    everything = sum(value.size for _, value in tree_flatten(module.parameters()))
    wrapped, targets = None, ["all weights"]
    if job.adapter.type == "none":
        module.unfreeze()
    elif job.adapter.from_:
        wrapped, targets = go_on_from(job, run, module, loaded.model.folder)
    else:
        wrapped, targets = add_adapter(job, module, loaded.model.folder)
    trainable = sum(value.size for _, value in tree_flatten(module.trainable_parameters()))
    added = 0 if job.adapter.type == "none" else trainable
    run.emit(Adapted(trainable=trainable, all=everything + added, targets=targets, type=job.adapter.type))
    return Loaded(model=replace(loaded.model, adapter=wrapped), traits=loaded.traits)


def add_adapter(job: Job, module: Any, folder: Path) -> tuple[Any, list[str]]:
    """Put LoRA into a model where peft puts it, with the weights that peft would draw; see :func:`as_peft`."""
    from transformers import set_seed

    from forge_mlx.lora import LoRALinear, drawn, lengths, weight_of

    wrapped, targets = as_peft(job, folder)
    set_seed(job.train.options.get("seed", 42))
    layers = dict(module.named_modules())
    for name, layer in wrapped.get_base_model().named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        base, rank, scale = layers[name], layer.r["default"], layer.scaling["default"]
        first, second = drawn(rank, layer.in_features, layer.out_features, job.adapter.init_lora_weights)
        magnitude = None
        if job.adapter.use_dora:
            magnitude = lengths(weight_of(base) + scale * (second @ first))
        put(module, name, LoRALinear(base, first, second, scale, dropout(job), magnitude))
    return wrapped, targets


def dropout(job: Job) -> float:
    """Return the share of inputs that the adapter does not see in a step; TRL's trainers of pairs switch it off."""
    return 0.0 if job.train.options.get("disable_dropout") else job.adapter.lora_dropout


def go_on_from(job: Job, run: Run, module: Any, folder: Path) -> tuple[Any, list[str]]:
    """Put the adapter that a job goes on from into a model; return what :func:`as_peft` does.

    Raises:
        ModelError: It cannot be had or read, or does not fit the model.
        PluginError: It is not the one that was planned.
    """
    start, begun = beginning(job)
    what, do = f"{start.about} cannot be put on {job.model.id}", "name the model that it was trained on in [model] id"
    with reading(what, begun, (CONFIG, WEIGHTS), do="see [adapter] from"):
        wrapped, targets = as_peft(job, folder)
    expected = lora_names(wrapped)
    if missing := sorted(expected - read_header(begun / WEIGHTS).shapes.keys()):
        raise ModelError(what, f"its file lacks {len(missing)} of {len(expected)} weights, as {missing[0]}", do)
    try:
        with reading(what, begun, (CONFIG, WEIGHTS), do="see [adapter] from"):
            take_adapter(module, begun, dropout(job))
    except RunError as error:
        raise ModelError(what, error.why, do) from error
    tell(job, run, start.about, start.config.get("base_model_name_or_path"), begun)
    return wrapped, targets


def beginning(job: Job) -> tuple[Start, Path]:
    """Return the adapter that a job goes on from, and its folder. Raises :class:`ModelError` if it cannot be had."""
    start = start_of(job)
    if start is None:
        raise PluginError("the plan has no adapter to go on from")
    return start, start.folder or adapter_snapshot(job, start.revision)


def as_peft(job: Job, folder: Path) -> tuple[Any, list[str]]:
    """Return peft's model of what a job adapts, without weights, and the names of the layers; never with DoRA.

    For DoRA peft would measure the weights.
    """
    model = skeleton(folder)
    if not job.adapter.from_:
        plain = job.adapter.model_copy(update={"use_dora": False})
        return add_lora(model, job.model_copy(update={"adapter": plain}))
    from peft import LoraConfig, get_peft_model

    config = LoraConfig.from_pretrained(str(beginning(job)[1]))
    config.use_dora, config.lora_dropout = False, job.adapter.lora_dropout
    config.inference_mode, config.task_type = False, config.task_type or "CAUSAL_LM"
    wrapped = get_peft_model(model, config)
    return wrapped, adapted_names(wrapped)


def lora_names(wrapped: Any) -> set[str]:
    """Return the names that LoRA's matrices of peft's model have in a file."""
    return {name.replace(".default", "") for name, _ in wrapped.named_parameters() if "lora_" in name}


def skeleton(folder: Path) -> Any:
    """Return transformers' model of a folder without its weights: what peft looks at to say where adapters go."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def put(module: Any, name: str, layer: Any) -> None:
    """Put a layer in the place of another one."""
    *path, last = name.split(".")
    for part in path:
        module = module[int(part)] if isinstance(module, list) else module[part]
    module[last] = layer


def take_adapter(module: Any, folder: Path, drop: float = 0.0) -> None:
    """Put an adapter of peft's into a model, in 32 bit.

    Args:
        module: The model.
        folder: The adapter's: its settings and weights.
        drop: The share of inputs that it does not see in a step.

    Raises:
        RunError: It has more than LoRA, or weights for which the model has no place.
    """
    import mlx.core as mx

    from forge_mlx.lora import LoRALinear, weight_of

    settings = read_object(folder / CONFIG)
    weights = {
        name.removeprefix("base_model.model.").removesuffix(".weight"): value.astype(mx.float32)
        for name, value in mx.load(str(folder / WEIGHTS)).items()
    }
    layers = dict(module.named_modules())
    names = sorted({name.rpartition(".lora_")[0] for name in weights})
    left = dict(weights)
    for name in names:
        parts = {part: left.pop(f"{name}.{part}", None) for part in ("lora_A", "lora_B", "lora_magnitude_vector")}
        if name not in layers or parts["lora_A"] is None or parts["lora_B"] is None:
            raise RunError(f"the adapter in {folder} is not for this model", f"it has weights of {name or 'no layer'}")
        first, second, magnitude = parts["lora_A"], parts["lora_B"], parts["lora_magnitude_vector"]
        outputs, inputs = weight_of(layers[name]).shape
        if (second.shape[0], first.shape[1]) != (outputs, inputs):
            why = f"{name} is from {first.shape[1]} to {second.shape[0]} in it, and {inputs} to {outputs} in the model"
            raise RunError(f"the adapter in {folder} is not for this model", why)
        scale = scale_of(settings, name, first.shape[0])
        put(module, name, LoRALinear(layers[name], first, second, scale, drop, magnitude))
    if left:
        what = f"the adapter in {folder} has {len(left)} weights that are none of LoRA's"
        raise RunError(what, ", ".join(sorted(left)[:3]), 'write [use] generate = "huggingface"')


def scale_of(settings: dict[str, Any], name: str, rank: int) -> float:
    """Return what a layer's adapter is multiplied by, from peft's settings."""
    from peft.utils.other import get_pattern_key

    alphas = settings.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), name), settings["lora_alpha"])
    return float(alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank)
