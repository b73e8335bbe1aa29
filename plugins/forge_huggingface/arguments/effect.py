"""Keys that matter only beside another key's value: whoever writes one without it hopes for something in vain.

Only a value that somebody wrote, and that is not the default, asks for anything; so a lock, which has all of them
written out, says no more than its job did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forge.api import Mistake, literal
from forge_huggingface.arguments.tables import SCHEDULERS, Schedule, optimizer

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Effect:
    """A key that matters only if another one has certain values.

    Attributes:
        key: The key.
        by: The other key.
        idle: Whether the values leave the key without effect.
        why: Why, as a phrase; ``{by}`` is the other key with its value, as a job writes it.
        do: What to do, as a phrase.
    """

    key: str
    by: str
    idle: Callable[[Values], bool]
    why: str
    do: str


def _schedule(values: Values) -> Schedule:
    return SCHEDULERS.get(values["lr_scheduler_type"], Schedule(("",)))  # one that is not known may take anything


def _no_warmup(values: Values) -> bool:
    return not _schedule(values).warmup and not optimizer(values["optim"]).warmup


_NOT_READ = "{by} does not read it"
_ADAM = "remove it, or choose an AdamW optimizer"

EFFECTS: tuple[Effect, ...] = (
    Effect("adam_beta1", "optim", lambda values: not optimizer(values["optim"]).betas, _NOT_READ, _ADAM),
    Effect("adam_beta2", "optim", lambda values: not optimizer(values["optim"]).betas, _NOT_READ, _ADAM),
    Effect("adam_epsilon", "optim", lambda values: not optimizer(values["optim"]).epsilon, _NOT_READ, _ADAM),
    Effect("optim_args", "optim", lambda values: optimizer(values["optim"]).takes == (), _NOT_READ, "remove it"),
    Effect(
        "optim_target_modules",
        "optim",
        lambda values: not optimizer(values["optim"]).targets,
        "{by} is none of the galore and apollo optimizers, which read it",
        "remove it; [adapter] target_modules says what LoRA adapts",
    ),
    Effect(
        "warmup_steps",
        "lr_scheduler_type",
        lambda values: _no_warmup(values) and values["lr_scheduler_type"] == "constant",
        "{by} has no warmup",
        'write lr_scheduler_type = "constant_with_warmup", or remove it',
    ),
    Effect(
        "warmup_steps",
        "lr_scheduler_type",
        lambda values: _no_warmup(values) and values["lr_scheduler_type"] != "constant",
        "{by} has no warmup",
        "remove it, or take another schedule",
    ),
    Effect(
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        lambda values: not _schedule(values).takes,
        "{by} takes no arguments",
        "remove it, or take another schedule",
    ),
    Effect(
        "num_train_epochs",
        "max_steps",
        lambda values: values["max_steps"] > 0,
        "{by} says when training ends",
        "remove one of the two",
    ),
    Effect(
        "gradient_checkpointing_kwargs",
        "gradient_checkpointing",
        lambda values: not values["gradient_checkpointing"],
        "{by}",
        "remove one of the two",
    ),
    Effect(
        "liger_kernel_config",
        "use_liger_kernel",
        lambda values: not values["use_liger_kernel"],
        "{by}",
        "write use_liger_kernel = true, or remove it",
    ),
    Effect(
        "save_steps",
        "save_strategy",
        lambda values: values["save_strategy"] != "steps",
        "{by}",
        'write save_strategy = "steps", or remove it',
    ),
    Effect(
        "eval_steps",
        "eval_strategy",
        lambda values: values["eval_strategy"] in {"epoch", "no"},
        "{by}",
        'write eval_strategy = "steps", or remove it',
    ),
    Effect(
        "eval_delay",
        "eval_strategy",
        lambda values: values["eval_strategy"] == "no",
        "{by}",
        'write eval_strategy = "steps" or "epoch", or remove it',
    ),
    *(
        Effect(
            key,
            "sync_ref_model",
            lambda values: not values.get("sync_ref_model"),
            "{by}, so the reference stays what it was",
            "write sync_ref_model = true, or remove it",
        )
        for key in ("ref_model_mixup_alpha", "ref_model_sync_steps")
    ),
)
"""All such keys of trainers' arguments."""


def without_effect(values: Values, written: frozenset[str], defaults: Values) -> Iterator[Mistake]:
    """Yield the keys that somebody wrote and that have no effect.

    Args:
        values: The whole table.
        written: The keys that stand in it.
        defaults: What each key is if it is left out.
    """
    for effect in EFFECTS:
        value = values.get(effect.key)
        asked = effect.key in written and value != {} and value != defaults[effect.key]
        if asked and effect.idle(values):
            why = effect.why.format(by=f"{effect.by} = {literal(values[effect.by])}")
            yield Mistake(f"{effect.key} has no effect: {why}; {effect.do}", (effect.key,), by=effect.by)
