"""ADAPT: LoRA where peft would put it, or every weight."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Adapted, Loaded, RunError
from forge_huggingface.model.adapt import add_lora

if TYPE_CHECKING:
    from forge.api import Job, Run


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Make the model trainable, as ``[adapter]`` says.

    Raises:
        ModelError: A name in ``[adapter]`` fits no module.
    """
    from mlx.utils import tree_flatten

    module = loaded.model.module
    everything = sum(value.size for _, value in tree_flatten(module.parameters()))
    targets = ["all weights"]
    if job.adapter.type == "none":
        module.unfreeze()
    else:
        targets = add_adapter(job, module, loaded.model.folder)
    trainable = sum(value.size for _, value in tree_flatten(module.trainable_parameters()))
    added = 0 if job.adapter.type == "none" else trainable
    run.emit(Adapted(trainable=trainable, all=everything + added, targets=targets, type=job.adapter.type))
    return Loaded(model=loaded.model, traits=loaded.traits)


def add_adapter(job: Job, module: Any, folder: Path) -> list[str]:
    """Put LoRA into a model where peft puts it, with the weights that peft would draw; return the layers' names."""
    from transformers import set_seed

    from forge_mlx.lora import LoRALinear, drawn, lengths, weight_of

    wrapped, targets = add_lora(skeleton(folder), without_dora(job))
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
        put(module, name, LoRALinear(base, first, second, scale, job.adapter.lora_dropout, magnitude))
    return targets


def without_dora(job: Job) -> Job:
    """Return a job whose adapter is plain LoRA: peft would measure the skeleton's weights for more, which has none."""
    return job.model_copy(update={"adapter": job.adapter.model_copy(update={"use_dora": False})})


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


def take_adapter(module: Any, folder: Path) -> None:
    """Put an adapter of peft's into a model.

    Args:
        module: The model.
        folder: The adapter's: its settings and weights.

    Raises:
        RunError: It has more than LoRA, or weights for which the model has no place.
    """
    import mlx.core as mx

    from forge_mlx.lora import LoRALinear

    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    weights = {
        name.removeprefix("base_model.model.").removesuffix(".weight"): value
        for name, value in mx.load(str(folder / "adapter_model.safetensors")).items()
    }
    layers = dict(module.named_modules())
    names = sorted({name.rpartition(".lora_")[0] for name in weights})
    left = dict(weights)
    for name in names:
        parts = {part: left.pop(f"{name}.{part}", None) for part in ("lora_A", "lora_B", "lora_magnitude_vector")}
        if name not in layers or parts["lora_A"] is None or parts["lora_B"] is None:
            raise RunError(f"the adapter in {folder} is not for this model", f"it has weights of {name or 'no layer'}")
        scale = scale_of(settings, name, parts["lora_A"].shape[0])
        put(
            module,
            name,
            LoRALinear(layers[name], parts["lora_A"], parts["lora_B"], scale, 0.0, parts["lora_magnitude_vector"]),
        )
    if left:
        what = f"the adapter in {folder} has {len(left)} weights that are none of LoRA's"
        raise RunError(what, ", ".join(sorted(left)[:3]), 'write [use] generate = "huggingface"')


def scale_of(settings: dict[str, Any], name: str, rank: int) -> float:
    """Return what a layer's adapter is multiplied by, from peft's settings."""
    from peft.utils.other import get_pattern_key

    alphas = settings.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), name), settings["lora_alpha"])
    return float(alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank)
