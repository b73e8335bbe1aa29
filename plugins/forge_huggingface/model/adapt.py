"""ADAPT: LoRA, chosen layers whole, or every weight."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from forge.api import Adapted, Loaded, ModelError, Noted, did_you_mean
from forge_huggingface.facts.shape import ROUTERS
from forge_huggingface.facts.targets import fits as is_target
from forge_huggingface.facts.targets import is_pattern
from forge_huggingface.heads.heads import head_modules
from forge_huggingface.hub.config import new_token_ids
from forge_huggingface.model import parts
from forge_huggingface.model.experts import expert_parameters, inside, taken_for_experts
from forge_huggingface.model.layers import choose
from forge_huggingface.model.residual import keep
from forge_huggingface.model.start import go_on_from
from forge_huggingface.model.tokens import ROWS, rows_of, show_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import LoraConfig

    from forge.api import AdapterTable, Job, Run


PEFTS_OWN = frozenset({"classifier", "score"})
"""Modules that peft trains whole by itself under ``SEQ_CLS``."""


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Make the model trainable, as ``[adapter]`` says.

    Raises:
        ModelError: A name in ``target_modules`` or ``modules_to_save`` fits no module; the adapter to go on from does
            not fit the model.
    """
    model = loaded.model
    if job.adapter.type == "layers":
        targets = choose(model, job.adapter)
    elif job.adapter.type == "none":
        model.requires_grad_(requires_grad=True)
        targets = ["all weights"]
        if job.adapter.finetune_vision_layers is False:
            parts.freeze_tower(model)
            targets = ["all weights but the vision tower's"]
    elif job.adapter.from_:
        model = go_on_from(model, job, run, task_type(model))
        show_rows(model)
        targets = adapted_names(model)
    else:
        if task_type(model) == "SEQ_CLS":
            run.emit(Noted(f"trained whole beside the adapter, and saved with it: {', '.join(head_modules(model))}"))
        model, targets = add_lora(model, job, new_token_ids(run))
        if job.adapter.takes_from_the_base and run.rank == 0:
            keep(model, run.folder)
    layers = {"layers": parts.count(model)} if not job.adapter.leaves_model and parts.sees(model) else {}
    run.emit(Adapted.from_values({**describe(model, job.adapter.type, targets), **layers}))
    return Loaded(model=model, traits=loaded.traits, trainer=loaded.trainer)


def describe(model: Any, kind: str, targets: list[str]) -> dict[str, Any]:
    """Return what is trained of a model, for the event ``adapted``."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {
        "type": kind,
        "targets": targets,
        "trainable": sum(parameter.numel() for parameter in trainable),
        "all": sum(parameter.numel() for parameter in model.parameters()),
        "dtypes": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in trainable}),
    }


def add_lora(model: Any, job: Job, tokens: Sequence[int] = ()) -> tuple[Any, list[str]]:
    """Wrap the model with peft's LoRA and return it with the names of the modules that it adapts.

    Args:
        model: The model.
        job: The job.
        tokens: The ids of new tokens, whose rows are trained beside.
    """
    from peft import get_peft_model
    from transformers import set_seed

    table = job.adapter
    targets = target_modules(model, table)
    check_names(model, table)
    with warnings.catch_warnings():
        # That peft could not take the beginning out again: forge does (model/residual.py).
        warnings.filterwarnings("ignore", message="Using Rank-Stabilized LoRA with rank_pattern")
        config = lora_config(model, table, targets, rows_of(model, table.modules_to_save or (), tokens))
    # TRL's trainer seeds right before it loads and wraps a model; doing the same makes the losses equal to a plain
    # script's, digit for digit (without it they part at step 2). Loading draws nothing but a new head.
    if config.task_type != "SEQ_CLS":
        set_seed(job.train.options.get("seed", 42))
    wrapped = get_peft_model(model, config)
    show_rows(wrapped)
    return wrapped, adapted_names(wrapped)


def lora_config(
    model: Any, table: AdapterTable, targets: str | list[str], rows: dict[str, list[int]] | None = None
) -> LoraConfig:
    """Return peft's configuration of what ``[adapter]`` says, with rows of tokens to train beside."""
    from peft import LoraConfig

    return LoraConfig(
        task_type=task_type(model),
        r=table.r,
        lora_alpha=table.lora_alpha,
        lora_dropout=table.lora_dropout,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
        target_parameters=parameters(model, table),
        exclude_modules=table.exclude_modules,
        modules_to_save=whole_modules(model, table),
        trainable_token_indices=rows,
        ensure_weight_tying=table.ensure_weight_tying,
        layers_to_transform=table.layers_to_transform,
        rank_pattern=dict(table.rank_pattern),
        alpha_pattern=dict(table.alpha_pattern),
        bias=table.bias,
        use_rslora=table.use_rslora,
        use_dora=table.use_dora,
        init_lora_weights=table.init_lora_weights,
    )


def whole_modules(model: Any, table: AdapterTable) -> list[str] | None:
    """Return the modules that are trained whole beside an adapter: those of the job, and a classifier's head."""
    if task_type(model) != "SEQ_CLS":
        return table.modules_to_save
    named = [*(table.modules_to_save or ()), *(name for name in head_modules(model) if name not in PEFTS_OWN)]
    return list(dict.fromkeys(named)) or None


def adapted_names(model: Any) -> list[str]:
    """Return the last names of the modules that have LoRA, and those of the parameters."""
    adapted = [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]
    return sorted({getattr(module, "parameter_name", name.rpartition(".")[2]) for name, module in adapted})


def keep_in_float32(model: Any, *, every: bool) -> None:
    """Put LoRA's matrices back into float32, where a trainer has rounded them.

    TRL makes those on a quantised base bfloat16, as QLoRA's authors did (arXiv 2305.14314); small updates vanish there,
    and the scaling of ``fp16`` takes no such gradients.

    Args:
        model: The model, wrapped by peft.
        every: Whether all that is trained is to be in float32, as ``fp16`` needs it: heads and embeddings too.
    """
    import torch

    for name, parameter in model.named_parameters():
        mine = every or "lora_" in name or ROWS in name
        if parameter.requires_grad and parameter.is_floating_point() and mine:
            parameter.data = parameter.data.to(torch.float32)


def task_type(model: Any) -> str:
    """Return peft's word for what a model is for; under ``SEQ_CLS`` peft trains and saves the head whole."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def check_names(model: Any, table: AdapterTable) -> None:
    """Refuse names that fit no module or layer: peft ignores them. Raises :class:`ModelError`."""
    every = [full for full, _ in model.named_modules() if full]
    for key in ("modules_to_save", "exclude_modules"):
        for name in getattr(table, key) or []:
            require_match(name, every, key)
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(table, key):
            # As peft matches them (peft.utils.get_pattern_key): a regular expression at the end of the name.
            if not any(re.match(rf"(.*\.)?({pattern})$", full) for full in every):
                require_match(pattern, every, key)
    layers = {int(part) for full in every for part in full.split(".") if part.isdigit()}
    for index in table.layers_to_transform or []:
        if index not in layers:
            last = max(layers, default=-1)
            raise ModelError(f"[adapter] layers_to_transform: there is no layer {index}", f"the layers are 0 to {last}")


def target_modules(model: Any, table: AdapterTable) -> str | list[str]:
    """Return peft's ``target_modules`` for a job.

    ``"auto"`` takes every linear layer inside the repeated blocks, ``"all-linear"`` is peft's own word, and neither
    takes routers. Names are checked one by one, since peft is content if only one of them fits. On a vision model, the
    ``finetune_…`` keys choose among them.

    Layers that peft would take for a family's experts are left out of both words, and cannot be named. Of these
    families regular expressions are spelled out, since peft makes last names of them, which fit every layer.
    """
    every = linear_modules(model)
    taken = taken_for_experts(model, every)
    linear = [name for name in every if name.rpartition(".")[2] not in taken]
    if table.target_modules == "all-linear" and not parts.sees(model):
        leaves = {name.rpartition(".")[2] for name in linear}
        return sorted(leaves - ROUTERS) if taken or not leaves.isdisjoint(ROUTERS) else "all-linear"
    if taken and (meant := [name for name in every if name not in linear and reached(table.target_modules, name)]):
        raise ModelError(
            f"[adapter] target_modules reaches {meant[0]}",
            f"peft takes {', '.join(sorted(taken))} of this family for its experts, and would adapt those",
            'leave it out; target_parameters = ["experts"] adapts the experts',
        )
    if parts.sees(model):
        found = parts.targets(model, table, linear, named_targets(model, table, linear))
        return spelled_out(found, linear) if taken else found
    if table.target_modules == "auto":
        repeated = {name.rpartition(".")[2] for name in linear if any(part.isdigit() for part in name.split("."))}
        # Training with LoRA what chooses the experts of a mixture makes the choice drift.
        return sorted(repeated - ROUTERS) or "all-linear"
    linear = [*linear, *embeddings(model)]
    named = named_targets(model, table, linear) or []
    if isinstance(table.target_modules, str) and is_pattern(table.target_modules) and not taken:
        return table.target_modules  # hundreds of names in adapter_config.json cannot be read
    return named


def spelled_out(found: str | list[str], linear: list[str]) -> list[str]:
    """Return targets as full names."""
    return [name for name in linear if re.fullmatch(found, name)] if isinstance(found, str) else found


def reached(asked: str | list[str], name: str) -> bool:
    """Whether ``target_modules`` names a module; forge's and peft's own words name none."""
    return asked not in ("auto", "all-linear") and is_target(asked, name)


def named_targets(model: Any, table: AdapterTable, linear: list[str]) -> list[str] | None:
    """Return the names in ``target_modules``, each of which fits a layer; None for forge's and peft's own words.

    Raises:
        ModelError: A name fits no module, or modules only that LoRA does not take.
    """
    if table.target_modules in ("auto", "all-linear"):
        return None
    if isinstance(table.target_modules, str) and is_pattern(table.target_modules):
        return matched(model, table.target_modules, linear)
    names = [table.target_modules] if isinstance(table.target_modules, str) else table.target_modules
    for name in names:
        if not fits(name, linear):
            refuse_whole(model, name, linear)
            require_match(name, linear, "target_modules")
    return names


def matched(model: Any, pattern: str, linear: list[str]) -> list[str]:
    """Return the full names of the linear layers that a regular expression reaches, as peft matches.

    Raises:
        ModelError: It reaches none, or other modules, which LoRA does not take.
    """
    found = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    what = f"[adapter] target_modules: {pattern}"
    if not found:
        leaves = sorted({full.rpartition(".")[2] for full in linear})
        raise ModelError(
            f"{what} fits no module of the model", f"there are {', '.join(leaves)}", "it is for whole names"
        )
    if others := sorted(set(found) - set(linear)):
        raise ModelError(f"{what} fits {others[0]} too", "LoRA is for linear layers before the last", "narrow it down")
    return found


def parameters(model: Any, table: AdapterTable) -> list[str] | None:
    """Return peft's ``target_parameters``. Raises :class:`ModelError` for a name that fits none, or a layer's."""
    if table.target_parameters is None:
        return None
    every = [name for name, _ in model.named_parameters()]
    named = [name for name in table.target_parameters if name != "experts"]
    for name in named:
        if not fits(name, every):
            leaves = sorted({full for full in map(inside, every) if "expert" in full})
            why = f"there are {', '.join(leaves)}" if leaves else "the model has no experts in one parameter"
            raise ModelError(f"[adapter] target_parameters: {name} fits no parameter of the model", why)
        if name.endswith(".weight") and any(
            full.endswith(name) for full in (f"{each}.weight" for each in linear_modules(model))
        ):
            raise ModelError(f"[adapter] target_parameters: {name} is a layer's", None, "name it in target_modules")
    return named if named == table.target_parameters else sorted({*named, *expert_parameters(model)})


def refuse_whole(model: Any, name: str, linear: list[str]) -> None:
    """Raise :class:`ModelError` for a module that is there and that LoRA does not take, with what to do instead."""
    import torch

    there = [module for full, module in model.named_modules() if fits(name, [full])]
    if not there:
        return
    what = f"[adapter] target_modules: LoRA does not take {name} here"
    if any(next(module.children(), None) is not None for module in there):
        leaves = sorted({full.rpartition(".")[2] for full in linear if f".{name}." in f".{full}"})
        say = f"name layers in it: {', '.join(leaves)}" if leaves else "take linear layers"
        raise ModelError(what, "it is a block of several modules, and LoRA is for linear layers", say)
    if any(module is model.get_output_embeddings() for module in there):
        why = "it is the output layer, and forge adapts the linear layers before it"
    elif any(isinstance(module, torch.nn.Embedding) for module in there):
        why = "it is an embedding, and LoRA is for linear layers"
    else:
        why = f"it is a {type(there[0]).__name__}, and LoRA is for linear layers"
    if next(there[0].parameters(), None) is None:
        raise ModelError(what, why, "it has no weights to train; remove it")
    raise ModelError(what, why, f'train it whole: modules_to_save = ["{name}"]')


def linear_modules(model: Any) -> list[str]:
    """Return the full names of the model's linear layers, quantised ones and GPT-2's ``Conv1D`` included."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def embeddings(model: Any) -> list[str]:
    """Return the full name of the model's embedding, where LoRA may be on it: where the output layer is another."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is embedding.weight:
        return []
    return [name for name, module in model.named_modules() if module is embedding]


def fits(name: str, there: list[str]) -> bool:
    """Whether a module is called ``name`` or ends in ``.name``, as peft matches."""
    return any(full == name or full.endswith(f".{name}") for full in there)


def require_match(name: str, there: list[str], key: str) -> None:
    """Raise :class:`ModelError` unless ``name`` fits a module."""
    if fits(name, there):
        return
    leaves = sorted({full.rpartition(".")[2] for full in there if not full.rpartition(".")[2].isdigit()})
    say = did_you_mean(name, leaves, 'take some of them, or "auto"')
    raise ModelError(f"[adapter] {key}: {name} fits no module of the model", f"there are {', '.join(leaves)}", say)
