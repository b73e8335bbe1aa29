"""Says which of the trainer's arguments a user may write in ``[train]``, and what each is if nobody writes it.

A job uses the trainer's own names. This module divides them: those that forge owns, each with a sentence that says
where the wish belongs, and all others, as a pydantic model with bounds, so that a mistake is seen before a model is
loaded. The defaults are one table, TRL's but for the entries of :data:`DEFAULTS`, and the trainer is told every one of
them: Unsloth changes fifteen of TRL's defaults, so a value that is left out is not the same on both backends.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, cast

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic import Field as Described

from forge.api import Mistakes
from forge_huggingface.fields import Field, table
from forge_huggingface.owned import NEUTRAL, OWNED, hint

DEFAULTS: Mapping[str, tuple[Any, str]] = {
    "bf16": (None, "by machine: TRL's true where the field is not set dies on a CPU and on GPUs older than Ampere"),
    "eval_strategy": (None, "by data: `epoch` where there are held-out rows; TRL's `no` would leave them unused"),
    "fp16": (None, "by machine: true where there is a GPU without bfloat16"),
    "learning_rate": (None, "by adapter: TRL's 2e-5 for every weight, 2e-4 for LoRA, as TRL's guide to peft advises"),
    "loss_type": (None, "by version, the one that never holds all logits: `nll` since TRL 1.15, before `chunked_nll`"),
    "pad_to_multiple_of": (None, 'TRL 1.14\'s; 1.16 has "auto", the same but on Neuron, which forge does not know'),
    "save_total_limit": (2, "TRL keeps all: a long run fills the disk; two, so that a damaged one costs little"),
}
"""Where forge's default is not TRL's, and why. ``None`` is filled in by :func:`resolve`, when the machine is known."""

LORA_LEARNING_RATE = 2e-4
"""TRL's documentation advises about ten times the rate of full fine-tuning for LoRA: 1e-4 to 2e-4."""

# Where the sources say less than they check, or more than a job file can say.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "debug": ("", "underflow_overflow"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
    "log_level": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "loss_type": ("nll", "dft", "chunked_nll"),
}
_HELP: Mapping[str, str] = {
    "bf16": "Mixed precision in bfloat16. Without it, by machine.",
    "eval_strategy": "When to evaluate: `no`, `steps` or `epoch`. Without it, `epoch` if there are held-out rows.",
    "fp16": "Mixed precision in float16. Without it, by machine.",
    "gradient_checkpointing": "Recompute activations in the backward pass: less memory, about 20 % slower.",
    "gradient_checkpointing_kwargs": "Arguments for gradient checkpointing, such as `use_reentrant`.",
    "learning_rate": "Peak learning rate of the optimizer. Without it, 2e-4 for LoRA and 2e-5 for every weight.",
    "loss_type": "`nll` (negative log-likelihood) or `dft` (dynamic fine-tuning). Without it, nll without full logits.",
    "max_steps": "Number of optimizer steps; -1 goes by `num_train_epochs`.",
    "save_total_limit": "How many checkpoints to keep, besides the best. forge rotates them, after each is whole.",
    "warmup_steps": "Steps in which the learning rate rises from 0; below 1 a share of all steps.",
}
_BOUNDS: Mapping[str, Mapping[str, float]] = {
    "adam_beta1": {"ge": 0, "lt": 1},
    "adam_beta2": {"ge": 0, "lt": 1},
    "adam_epsilon": {"ge": 0},
    "data_seed": {"ge": 0, "le": 2**32 - 1},
    "dataloader_num_workers": {"ge": 0},
    "dataloader_prefetch_factor": {"ge": 1},
    "eval_delay": {"ge": 0},
    "eval_steps": {"gt": 0},
    "gradient_accumulation_steps": {"ge": 1},
    "label_smoothing_factor": {"ge": 0, "lt": 1},
    "learning_rate": {"ge": 0},
    "logging_steps": {"gt": 0},
    "max_grad_norm": {"ge": 0},
    "max_steps": {"ge": -1},
    "neftune_noise_alpha": {"ge": 0},
    "num_train_epochs": {"gt": 0},
    "pad_to_multiple_of": {"ge": 1},
    "per_device_eval_batch_size": {"ge": 1},
    "per_device_train_batch_size": {"ge": 1},
    "router_aux_loss_coef": {"ge": 0},
    "save_steps": {"gt": 0},
    "save_total_limit": {"ge": 2},  # the newest may be the one that a power cut damaged
    "seed": {"ge": 0, "le": 2**32 - 1},  # numpy takes no larger one
    "torch_empty_cache_steps": {"ge": 1},
    "warmup_steps": {"ge": 0},
    "weight_decay": {"ge": 0},
}
# What a schedule cannot do without, in lr_scheduler_kwargs: one of these.
_SCHEDULERS: Mapping[str, tuple[str, ...]] = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
# Whole numbers, or below 1 a share of all steps; int stays int in the lock.
_STEPS = ("eval_steps", "logging_steps", "save_steps", "warmup_steps")
_TYPES: Mapping[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "list[str]": list[str]}


class _Checked(BaseModel):
    """What the arguments must agree on: all that the trainer would only say once the model is loaded."""

    # TOML has nan and inf, and a bound alone lets inf through.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @staticmethod
    def forge_hint(name: str) -> str | None:
        """Say what to do about a key that is not one."""
        return hint(name)

    @model_validator(mode="after")
    def _agree(self) -> _Checked:
        values = dict(self)
        problems = [*_steps_problems(values), *_evaluation_problems(values), *_other_problems(values)]
        if problems:
            raise Mistakes(*problems)
        return self


@functools.cache
def sft_options() -> type[BaseModel]:
    """Return the model of the keys that a user may write in ``[train]`` under ``method = "sft"``."""
    described: dict[str, Any] = {}
    for name, field in usable().items():
        default = DEFAULTS[name][0] if name in DEFAULTS else field.default
        text = _HELP.get(name, field.help)
        bounds = cast(Mapping[str, Any], _BOUNDS.get(name, {}))
        described[name] = (
            Annotated[_annotation(field, optional=default is None), Described(description=text, **bounds)],
            default,
        )
    return create_model("SftOptions", __base__=_Checked, __doc__="Arguments of TRL's SFTConfig.", **described)


def usable() -> dict[str, Field]:
    """Return the fields of ``SFTConfig`` that a job may set."""
    return {name: field for name, field in table().items() if name not in OWNED}


def defaults(adapter_type: str) -> dict[str, Any]:
    """Return what every usable field is if the job does not set it.

    Args:
        adapter_type: ``[adapter] type``.

    Returns:
        Values by name. ``bf16`` and ``fp16`` are ``None``: only the machine decides them.
    """
    values = {name: DEFAULTS[name][0] if name in DEFAULTS else field.default for name, field in usable().items()}
    values["learning_rate"] = table()["learning_rate"].default if adapter_type == "none" else LORA_LEARNING_RATE
    values["loss_type"] = "nll" if _lean_nll() else "chunked_nll"
    return values


def resolve(options: Mapping[str, Any], adapter_type: str, half: Literal["bf16", "fp16"] | None) -> dict[str, Any]:
    """Return every argument for the installed ``SFTConfig``, but ``output_dir``.

    Args:
        options: What the job sets: the values of :func:`sft_options`; ``None`` is not set.
        adapter_type: ``[adapter] type``.
        half: The machine's 16-bit type for mixed precision, if it has one.

    Returns:
        Values by the names of the installed version.
    """
    fields = table()
    given = {name: value for name, value in options.items() if name not in OWNED and value is not None}
    if unknown := given.keys() - fields.keys():
        raise ValueError(f"the installed SFTConfig has no {', '.join(sorted(unknown))}")
    chosen = defaults(adapter_type) | given
    chosen["eval_strategy"] = chosen["eval_strategy"] or "no"  # the plan has decided it where there are rows for it
    if chosen["bf16"] is None:
        chosen["bf16"] = half == "bf16" and not chosen["fp16"]
    if chosen["fp16"] is None:
        chosen["fp16"] = half == "fp16" and not chosen["bf16"]
    if _lean_nll():
        # A lock that was written under TRL 1.14 runs on: the alias computes the same and would only warn.
        chosen["loss_type"] = "nll" if chosen["loss_type"] == "chunked_nll" else chosen["loss_type"]
    elif chosen["use_liger_kernel"] and "loss_type" not in given:
        chosen["loss_type"] = "nll"  # Liger fuses the loss itself, and 1.14 refuses both at once
    # The trainer deletes old checkpoints before the new one is whole, so forge does it, by this number.
    chosen["save_total_limit"] = None
    values = {**{name: field.default for name, field in fields.items()}, **NEUTRAL, **chosen}
    for old, new in (
        ("gradient_checkpointing", "activation_checkpointing"),
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
    ):
        if new in fields:  # transformers 5.23 warns of the old name; a job keeps it, as it runs on both
            values[new] = values.pop(old)
    del values["output_dir"]
    return values


def _lean_nll() -> bool:
    """Whether ``nll`` is the loss that never holds all logits: TRL 1.15 made it so, and it the default."""
    return bool(table()["loss_type"].default == "nll")


def _annotation(field: Field, *, optional: bool) -> Any:
    names = field.type.split("|")
    choices = _CHOICES.get(field.name, field.choices)
    types: list[Any]
    if choices:
        types = [cast(Any, Literal)[choices]]
    elif field.name in _STEPS:
        types = [int, float]
    elif "dict" in names:
        types = [dict[str, Any]]  # their string form is for command lines
    elif field.name == "pad_to_multiple_of":
        types = [int]  # its "auto" is what no value means
    else:
        types = [_TYPES[name] for name in names if name != "null"]
    # TOML has no null: a field is optional only where it starts so.
    return Union[tuple(types + [None] * optional)]  # noqa: UP007 - the members are known at run time only


def _steps_problems(values: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{name} = {values[name]} must be a whole number, or below 1 for a share of all steps"
        for name in _STEPS
        if values[name] is not None and values[name] >= 1 and values[name] != int(values[name])
    ]
    if values["max_steps"] == 0:
        problems.append("max_steps = 0 would train nothing; remove it, or write -1 to go by num_train_epochs")
    return problems


def _evaluation_problems(values: Mapping[str, Any]) -> list[str]:
    problems = []
    best, save, evaluate = values["load_best_model_at_end"], values["save_strategy"], values["eval_strategy"]
    needing = {
        "load_best_model_at_end": best,
        'save_strategy = "best"': save == "best",
        f'lr_scheduler_type = "{values["lr_scheduler_type"]}"': values["lr_scheduler_type"]
        in {"reduce_lr_on_plateau", "greedy"},
    }
    if evaluate == "no":
        problems += [
            f'{name} needs evaluations; write eval_strategy = "steps" or "epoch"'
            for name, asked in needing.items()
            if asked
        ]
    elif evaluate is not None and best and save != "best":  # None: forge makes it fit
        steps, every = values["save_steps"], values["eval_steps"] or values["logging_steps"]
        if save != evaluate:
            problems.append(
                f'load_best_model_at_end needs a checkpoint of every evaluation: save_strategy is "{save}" and '
                f'eval_strategy "{evaluate}"; make them the same, or write save_strategy = "best"'
            )
        elif save == "steps" and ((steps < 1) != (every < 1) or not _multiple(steps, every)):
            problems.append(
                f"load_best_model_at_end needs save_steps ({steps}) to be a multiple of eval_steps ({every})"
            )
    if save == "best" and values["metric_for_best_model"] is None and not best:
        problems.append('save_strategy = "best" needs metric_for_best_model; write "loss"')
    metric = values["metric_for_best_model"]
    if values["greater_is_better"] and (metric or "loss").endswith("loss") and (metric or best):
        problems.append("greater_is_better = true would keep the checkpoint with the highest loss; remove it")
    return problems


def _multiple(steps: float, every: float) -> bool:
    # As the trainer does it: shares are floats, and 0.3 % 0.1 is not 0.
    return (steps * 1_000_000) % (every * 1_000_000) == 0


def _other_problems(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values["bf16"] and values["fp16"]:
        problems.append("bf16 and fp16 contradict each other; keep one")
    if values["bf16_full_eval"] and values["fp16_full_eval"]:
        problems.append("bf16_full_eval and fp16_full_eval contradict each other; keep one")
    if values["fp16"] and values["use_cpu"]:
        problems.append("fp16 needs a GPU, and use_cpu is true; keep one")
    if values["use_liger_kernel"] and values["loss_type"] == "chunked_nll":
        problems.append('loss_type = "chunked_nll" and use_liger_kernel both replace the loss; keep one')
    scheduler, arguments = values["lr_scheduler_type"], values["lr_scheduler_kwargs"] or {}
    if needed := _SCHEDULERS.get(scheduler):
        given = [name for name in needed if name in arguments]
        if len(given) != 1:
            problems.append(
                f'lr_scheduler_type = "{scheduler}" needs {" or ".join(needed)}; '
                f"write lr_scheduler_kwargs = {{ {needed[-1]} = … }}"
            )
    if values["optim"].startswith(("galore_", "apollo_")) and not values["optim_target_modules"]:
        problems.append(
            f'optim = "{values["optim"]}" needs optim_target_modules; write "all-linear" or names of modules'
        )
    if values["dataloader_num_workers"] == 0:
        about = ("prefetch_factor", "persistent_workers", "multiprocessing_context")
        problems += [
            f"dataloader_{name} is about worker processes; write dataloader_num_workers = 1 or more"
            for name in about
            if values[f"dataloader_{name}"]
        ]
    return problems
