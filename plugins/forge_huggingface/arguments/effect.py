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


def _losses(values: Values) -> frozenset[str]:
    """Return the losses of a method, of which dpo may have several."""
    found = values.get("loss_type")
    return frozenset([found] if isinstance(found, str) else found or [])


def _reports_to(values: Values, *names: str) -> bool:
    """Whether a tracker, or one of these, is reported to."""
    found = values["report_to"]
    trackers = {found} if isinstance(found, str) else set(found or ())
    return bool(trackers & {*names, "all"} if names else trackers - {"none"})


def _by_loss(reads: Mapping[str, tuple[str, ...]], *methods: str) -> tuple[Effect, ...]:
    """Return effects of keys that only some losses read.

    Args:
        reads: For each key the losses that read it.
        methods: A key that only these methods' arguments have, since others share the key's name.
    """

    def idle(losses: tuple[str, ...]) -> Callable[[Values], bool]:
        return lambda values: all(mark in values for mark in methods) and not _losses(values) & set(losses)

    return tuple(
        Effect(key, "loss_type", idle(losses), _NOT_READ, f"remove it, or take {' or '.join(losses)}")
        for key, losses in reads.items()
    )


def _switched(switch: str, keys: tuple[str, ...]) -> tuple[Effect, ...]:
    """Return effects of keys that matter only where a switch is on."""
    do = f"write {switch} = true, or remove it"
    return tuple(Effect(key, switch, lambda values: not values.get(switch), "{by}", do) for key in keys)


def _supervised(values: Values) -> bool:
    return "beta" not in values and "center_rewards_coefficient" not in values


_LOMO = frozenset({"adalomo", "lomo"})


def _own_groups(values: Values) -> bool:
    """Whether an optimizer parts the parameters itself, or steps within the backward pass."""
    return values["optim"] in _LOMO or values["optim"].startswith(("apollo_", "galore_"))


_NOT_READ = "{by} does not read it"
_ADAM = "remove it, or choose an AdamW optimizer"

EFFECTS: tuple[Effect, ...] = (
    Effect("adam_beta1", "optim", lambda values: not optimizer(values["optim"]).betas, _NOT_READ, _ADAM),
    Effect("adam_beta2", "optim", lambda values: not optimizer(values["optim"]).betas, _NOT_READ, _ADAM),
    Effect("adam_epsilon", "optim", lambda values: not optimizer(values["optim"]).epsilon, _NOT_READ, _ADAM),
    *(
        Effect(key, "optim", _own_groups, "{by} parts the parameters itself", "take another optimizer")
        for key in ("learning_rates", "loraplus_lr_ratio")
    ),
    Effect(
        "max_tool_calling_iterations",
        "tools",
        lambda values: not values.get("tools") and not values.get("environment"),
        "the model may call nothing",
        "write tools or environment, or remove it",
    ),
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
        _NOT_READ,
        "remove it",
    ),
    Effect(
        "label_smoothing_factor",
        "loss_type",
        lambda values: values.get("loss_type") == "dft",
        _NOT_READ,
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
    *_switched("torch_compile", ("torch_compile_backend", "torch_compile_mode")),
    *_switched("precompute_ref_log_probs", ("precompute_ref_batch_size",)),
    *_switched(
        "use_adaptive_entropy", ("entropy_coef_delta", "entropy_coef_max", "entropy_coef_min", "entropy_target")
    ),
    *_switched(
        "use_vllm",
        (
            "vllm_enable_sleep_mode",
            "vllm_gpu_memory_utilization",
            "vllm_group_port",
            "vllm_importance_sampling_clip_max",
            "vllm_importance_sampling_clip_min",
            "vllm_importance_sampling_correction",
            "vllm_importance_sampling_mode",
            "vllm_max_model_length",
            "vllm_mode",
            "vllm_model_impl",
            "vllm_server_base_url",
            "vllm_server_host",
            "vllm_server_port",
            "vllm_server_timeout",
            "vllm_structured_outputs_regex",
            "vllm_tensor_parallel_size",
        ),
    ),
    *(
        Effect(
            key,
            "vllm_mode",
            lambda values: bool(values.get("use_vllm")) and values.get("vllm_mode") != "server",
            "{by}",
            'write vllm_mode = "server", or remove it',
        )
        for key in (
            "vllm_group_port",
            "vllm_server_base_url",
            "vllm_server_host",
            "vllm_server_port",
            "vllm_server_timeout",
        )
    ),
    *(
        Effect(
            key,
            "vllm_mode",
            lambda values: bool(values.get("use_vllm")) and values.get("vllm_mode") == "server",
            "{by}, and the server was started with its own",
            'write vllm_mode = "colocate", or remove it',
        )
        for key in (
            "vllm_enable_sleep_mode",
            "vllm_gpu_memory_utilization",
            "vllm_max_model_length",
            "vllm_model_impl",
            "vllm_tensor_parallel_size",
        )
    ),
    *(
        Effect(
            key,
            "vllm_importance_sampling_correction",
            lambda values: bool(values.get("use_vllm")) and not values.get("vllm_importance_sampling_correction"),
            "{by}",
            "remove one of the two",
        )
        for key in (
            "vllm_importance_sampling_clip_max",
            "vllm_importance_sampling_clip_min",
            "vllm_importance_sampling_mode",
        )
    ),
    Effect("cache_implementation", "use_vllm", lambda values: bool(values.get("use_vllm")), _NOT_READ, "remove it"),
    Effect(
        "use_bias_correction_kl",
        "beta",
        lambda values: values.get("beta") == 0,
        "{by}, so nothing is compared with the reference",
        "write a beta above 0, or remove it",
    ),
    Effect(
        "beta",
        "loss_type",
        lambda values: "f_divergence_type" in values and _losses(values) == {"sft"},
        _NOT_READ,
        "remove it, or add another loss",
    ),
    Effect(
        "seq_kd",
        "lmbda",
        lambda values: values.get("lmbda") == 1,
        "with {by} all steps are on the model's own answers",
        "write lmbda = 0.0 or more",
    ),
    *(
        Effect(
            key,
            "lmbda",
            lambda values: values.get("lmbda") == 0 and not values.get("seq_kd"),
            "with {by} all answers are those of the rows",
            "remove it",
        )
        for key in (
            "cache_implementation",
            "generation_kwargs",
            "max_completion_length",
            "min_p",
            "repetition_penalty",
            "top_k",
            "top_p",
            "use_vllm",
        )
    ),
    *_by_loss({"label_smoothing": ("exo_pair", "robust", "aot", "aot_unpaired")}, "f_divergence_type"),
    *_by_loss({"discopop_tau": ("discopop",)}),
    *_by_loss({"label_smoothing": ("sigmoid", "simpo")}, "cpo_alpha"),
    *_by_loss({"simpo_gamma": ("simpo",)}),
    *_by_loss(
        {
            "sapo_temperature_neg": ("sapo",),
            "sapo_temperature_pos": ("sapo",),
            "vespo_k_neg": ("vespo",),
            "vespo_k_pos": ("vespo",),
            "vespo_lambda_neg": ("vespo",),
            "vespo_lambda_pos": ("vespo",),
            "delta": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo"),
            "epsilon": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo"),
            "epsilon_high": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo"),
        },
        "importance_sampling_level",
    ),
    Effect(
        "f_alpha_divergence_coef",
        "f_divergence_type",
        lambda values: values.get("f_divergence_type") != "alpha_divergence",
        _NOT_READ,
        'write f_divergence_type = "alpha_divergence", or remove it',
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
