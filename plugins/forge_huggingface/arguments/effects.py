"""Keys that matter only beside another key's value: whoever writes one without it hopes for something in vain.

Only a value that somebody wrote, and that is not the default, asks for anything; so a lock, which has all of them
written out, says no more than its job did.
"""

from __future__ import annotations

from collections.abc import Iterator

from forge.api import Mistake, literal
from forge_huggingface.arguments.effect import NOT_READ, Effect, Values, switched
from forge_huggingface.arguments.effects_of_methods import OF_METHODS
from forge_huggingface.arguments.tables import SCHEDULERS, Schedule, optimizer


def _schedule(values: Values) -> Schedule:
    return SCHEDULERS.get(values["lr_scheduler_type"], Schedule(("",)))  # one that is not known may take anything


def _no_warmup(values: Values) -> bool:
    return not _schedule(values).warmup and not optimizer(values["optim"]).warmup


def _reports_to(values: Values, *names: str) -> bool:
    """Whether a tracker, or one of these, is reported to."""
    found = values["report_to"]
    trackers = {found} if isinstance(found, str) else set(found or ())
    return bool(trackers & {*names, "all"} if names else trackers - {"none"})


def _supervised(values: Values) -> bool:
    return "beta" not in values and "center_rewards_coefficient" not in values


_LOMO = frozenset({"adalomo", "lomo"})


def _own_groups(values: Values) -> bool:
    """Whether an optimizer parts the parameters itself, or steps within the backward pass."""
    return values["optim"] in _LOMO or values["optim"].startswith(("apollo_", "galore_"))


_ADAM = "remove it, or choose an AdamW optimizer"

EFFECTS: tuple[Effect, ...] = (
    Effect("adam_beta1", "optim", lambda values: not optimizer(values["optim"]).betas, NOT_READ, _ADAM),
    Effect("adam_beta2", "optim", lambda values: not optimizer(values["optim"]).betas, NOT_READ, _ADAM),
    Effect("adam_epsilon", "optim", lambda values: not optimizer(values["optim"]).epsilon, NOT_READ, _ADAM),
    *(
        Effect(key, "optim", _own_groups, "{by} parts the parameters itself", "take another optimizer")
        for key in ("learning_rates", "loraplus_lr_ratio")
    ),
    Effect("optim_args", "optim", lambda values: optimizer(values["optim"]).takes == (), NOT_READ, "remove it"),
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
    Effect(
        "logging_steps",
        "logging_strategy",
        lambda values: values["logging_strategy"] != "steps",
        "{by}",
        'write logging_strategy = "steps", or remove it',
    ),
    Effect(
        "save_total_limit",
        "save_strategy",
        lambda values: values["save_strategy"] == "no",
        "{by}",
        "remove one of the two",
    ),
    *(
        Effect(
            key,
            "eval_strategy",
            lambda values: bool(values),
            "a run evaluates while it trains, in the precision of the training",
            "remove it",
        )
        for key in ("bf16_full_eval", "fp16_full_eval")
    ),
    Effect(
        "max_grad_norm",
        "optim",
        lambda values: values["optim"] in _LOMO or values["optim"].endswith("_layerwise"),
        "{by} has used the gradients up before they could be clipped",
        "remove it",
    ),
    Effect(
        "weight_decay",
        "optim",
        _own_groups,
        NOT_READ,
        "remove it",
    ),
    Effect(
        "label_smoothing_factor",
        "loss_type",
        lambda values: values.get("loss_type") == "dft",
        NOT_READ,
        'write loss_type = "nll", or remove it',
    ),
    Effect(
        "label_smoothing_factor",
        "label_smoothing_factor",
        lambda values: not _supervised(values),
        "only supervised fine-tuning reads it",
        "remove it",
    ),
    Effect(
        "data_seed",
        "train_sampling_strategy",
        lambda values: values["train_sampling_strategy"] == "sequential",
        "{by} draws no order",
        "remove one of the two",
    ),
    *(
        Effect(
            key,
            "report_to",
            lambda values: not _reports_to(values),
            "{by} names no tracker",
            "name one, or remove it; a run is called by the job's own name",
        )
        for key in ("project", "run_name")
    ),
    *(
        Effect(
            key,
            "report_to",
            lambda values: not _reports_to(values, "trackio"),
            "{by} does not name trackio",
            'write report_to = "trackio", or remove it',
        )
        for key in ("trackio_bucket_id", "trackio_space_id", "trackio_static_space_id")
    ),
    *switched("torch_compile", ("torch_compile_backend", "torch_compile_mode")),
    *OF_METHODS,
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
