"""What several tools have in common: transformers' arguments by their own names, and how a job writes some of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate.draft import secret, truth

if TYPE_CHECKING:
    from forge_migrate.draft import Draft, Given

SAME = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "activation_offloading",
    "average_tokens_across_devices",
    "beta",
    "center_rewards_coefficient",
    "cpo_alpha",
    "dataloader_drop_last",
    "desirable_weight",
    "disable_dropout",
    "early_stopping_patience",
    "epsilon",
    "epsilon_high",
    "eval_on_start",
    "f_divergence_type",
    "gradient_accumulation_steps",
    "greater_is_better",
    "importance_sampling_level",
    "label_smoothing",
    "learning_rate",
    "liger_kernel_config",
    "load_best_model_at_end",
    "logging_steps",
    "loss_weights",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "mask_truncated_completions",
    "max_completion_length",
    "max_grad_norm",
    "max_steps",
    "metric_for_best_model",
    "min_p",
    "neftune_noise_alpha",
    "num_generations",
    "num_iterations",
    "num_train_epochs",
    "optim",
    "optim_args",
    "optim_target_modules",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "precompute_ref_log_probs",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "repetition_penalty",
    "router_aux_loss_coef",
    "save_total_limit",
    "seed",
    "simpo_gamma",
    "steps_per_generation",
    "sync_ref_model",
    "temperature",
    "top_k",
    "top_p",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "undesirable_weight",
    "use_liger_kernel",
    "use_vllm",
    "use_weighting",
    "vllm_gpu_memory_utilization",
    "vllm_mode",
    "weight_decay",
)
"""Arguments of transformers and TRL that a job calls by their own names."""

NUMBERS = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "beta",
        "gradient_accumulation_steps",
        "learning_rate",
        "logging_steps",
        "max_grad_norm",
        "max_steps",
        "neftune_noise_alpha",
        "num_train_epochs",
        "per_device_eval_batch_size",
        "per_device_train_batch_size",
        "save_total_limit",
        "seed",
        "temperature",
        "weight_decay",
    }
)

BOOKKEEPING: Mapping[str, str] = {
    "data_seed": "rows are shuffled by seed",
    "dataloader_num_workers": "forge reads rows beforehand",
    "dataloader_persistent_workers": "forge reads rows beforehand",
    "dataloader_pin_memory": "speed only",
    "dataloader_prefetch_factor": "forge reads rows beforehand",
    "dataset_num_proc": "forge makes rows in one process",
    "ddp_timeout": "belongs to a launch",
    "disable_tqdm": "the screen's",
    "do_eval": "held-out rows decide",
    "do_train": "forge run trains",
    "ignore_data_skip": "forge resumes where the rows were",
    "include_num_input_tokens_seen": "tokens are counted always",
    "load_from_cache_file": "rows are made anew",
    "log_level": "the screen's",
    "logging_dir": "the run's folder holds its events",
    "logging_first_step": "the screen's",
    "logging_strategy": "logging_steps says when",
    "output_dir": "runs have folders of their own, runs/<name>/<time>",
    "overwrite_cache": "rows are made anew",
    "overwrite_output_dir": "runs have folders of their own",
    "plot_loss": "`forge report RUN` draws it",
    "preprocessing_num_workers": "forge makes rows in one process",
    "remove_unused_columns": "forge takes the columns that it uses",
    "resume_from_checkpoint": "`forge resume RUN` goes on",
    "save_only_model": "checkpoints hold all that a resume needs",
    "save_safetensors": "weights are safetensors always",
    "skip_memory_metrics": "memory is measured always",
    "torch_empty_cache_steps": "speed only",
}
"""Keys that change nothing of a training, and why they fall away."""

MACHINES = (
    "context_parallel",
    "ddp_",
    "deepspeed",
    "dp_replicate",
    "dp_shard",
    "expert_parallel",
    "fsdp",
    "sequence_parallel",
    "tensor_parallel",
)
"""Beginnings of keys that spread a training over processes."""

_NOTHING: tuple[Any, ...] = (False, None, {}, [], "")

SCHEDULES = frozenset({"linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"})


def same(given: Given, draft: Draft) -> None:
    """Take over the arguments that have the same name and meaning here."""
    for name in SAME:
        if name in given:
            value = given.number(name) if name in NUMBERS else _flagged(given.take(name))
            draft.set(f"train.{name}", value)


def _flagged(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return truth(value)
    return value


def bookkeeping(given: Given, draft: Draft) -> None:
    """Let fall what changes nothing, and say so."""
    for name, why in BOOKKEEPING.items():
        if name in given:
            draft.drop(name, given.take(name), why)


def warm_up(given: Given, draft: Draft) -> None:
    """Write ``warmup_steps``: steps, or below 1 a share of them, where the tools have two keys."""
    steps, ratio = given.number("warmup_steps"), given.number("warmup_ratio")
    if steps:
        draft.set("train.warmup_steps", steps)
    elif ratio:
        draft.set("train.warmup_steps", ratio, "a share of all steps")
    elif steps == 0 or ratio == 0:
        draft.set("train.warmup_steps", 0)


def saving(given: Given, draft: Draft) -> None:
    """Take over when checkpoints are written and rows are evaluated."""
    for name in ("save_strategy", "eval_strategy"):
        draft.set(f"train.{name}", given.take(name))
    old = given.take("evaluation_strategy")
    if old is not None:
        draft.otherwise("train.eval_strategy", old, "evaluation_strategy there")
    for name in ("save_steps", "eval_steps"):
        steps = given.number(name)
        if steps:
            draft.set(f"train.{name}", steps)
    if draft.get("train.eval_steps") is not None and draft.get("train.eval_strategy") is None:
        draft.set("train.eval_strategy", "steps")


def precision(given: Given, draft: Draft) -> None:
    """Take over the types that are computed in; what is on by default here is left open."""
    for name in ("bf16", "fp16", "tf32"):
        value = given.take(name)
        if value is None or (isinstance(value, str) and value.lower() == "auto"):
            continue
        if value == "full":
            draft.set("model.dtype", {"bf16": "bfloat16", "fp16": "float16"}.get(name))
        elif truth(value) and name != "tf32":
            draft.set(f"train.{name}", value=True)
        elif name == "tf32" and truth(value):
            draft.set("train.tf32", value=True)


def checkpointing(given: Given, draft: Draft) -> None:
    """Leave it to forge whether activations are made again: it changes memory and speed, not the training."""
    for name in ("gradient_checkpointing", "gradient_checkpointing_kwargs", "vit_gradient_checkpointing"):
        if name in given:
            draft.drop(name, given.take(name), "forge decides by the memory; the training is the same")


def start(draft: Draft, key: str, adapters: list[str], *, reference: bool = True) -> None:
    """Write the adapter that a training goes on from: it brings its own rank, alpha and targets.

    Args:
        draft: The job.
        key: What the other tool calls it.
        adapters: Those that it names.
        reference: Whether its reference is the adapter as it was, as forge's; else it is the bare base.
    """
    if len(adapters) > 1:
        draft.lack(key, adapters, "forge goes on from one adapter: merge the first ones into the model")
        return
    if not reference and draft.get("train.method") in {"dpo", "kto", "grpo", "rloo"}:
        draft.lack(key, adapters[0], "the reference there is the bare base; forge's is the adapter as it was")
        return
    dropout = draft.get("adapter.lora_dropout")
    draft.tables["adapter"] = {"type": "lora"}
    draft.set("adapter.from", adapters[0], "it brings rank, alpha and targets")
    draft.set("adapter.lora_dropout", dropout)


def targets(words: list[str]) -> str | list[str]:
    """Return targets as a job writes them: one that is no name is peft's regular expression.

    >>> targets(["q_proj"]), targets(["model.*_proj"])
    (['q_proj'], 'model.*_proj')
    """
    return words[0] if len(words) == 1 and re.fullmatch(r"[\w.-]+", words[0]) is None else words


def adapter(draft: Draft, *, rank: Any, alpha: Any, dropout: Any, note: str | None = None) -> None:
    """Write LoRA's three numbers."""
    draft.set("adapter.type", "lora")
    draft.set("adapter.r", rank, note)
    draft.set("adapter.lora_alpha", alpha)
    draft.set("adapter.lora_dropout", dropout)


def lora_plus(given: Given, draft: Draft, name: str = "loraplus_lr_ratio") -> None:
    """Take over the ratio of LoRA+; the rate of an adapter of embeddings is theirs alone, and forge adapts none."""
    draft.set("train.loraplus_lr_ratio", given.number(name))
    if (rate := given.take("loraplus_lr_embedding")) is not None:
        draft.drop("loraplus_lr_embedding", rate, "of an adapter of the embeddings, which there is none of")


def whole(draft: Draft, note: str | None = None) -> None:
    """Train every weight: forge's default is LoRA."""
    draft.set("adapter.type", "none", note or "every weight is trained there; forge's default is LoRA")


def trackers(given: Given, draft: Draft) -> None:
    """Take over where a run is reported to; logins and addresses stay with the environment."""
    named = [word for word in given.words("report_to") if word.lower() not in {"none", "null"}]
    if named == ["all"]:
        draft.drop("report_to", "all", "trackers are named here: `[train] report_to`")
        named = []
    if named:
        draft.set("train.report_to", named[0] if len(named) == 1 else named)
    for name in ("run_name", "project"):
        value = given.take(name)
        if value is not None and draft.get("train.report_to"):
            draft.set(f"train.{name}", value)
        elif value is not None:
            draft.drop(name, value, "the run is reported to nobody")


def secrets(given: Given, draft: Draft) -> None:
    """Say of secrets that they are not copied."""
    for name, _ in list(given.rest_if(secret)):
        draft.drop(name, None, "a secret; forge reads it from the environment (HF_TOKEN, WANDB_API_KEY …)")


def processes(given: Given, draft: Draft, more: Mapping[str, Any] | None = None) -> None:
    """Say of what spreads a training over processes that it has no translation."""
    named = [name for name, value in [*given.starting(*MACHINES), *(more or {}).items()] if value not in _NOTHING]
    if named:
        draft.tell(
            f"{', '.join(named)}: the training is spread over processes there. With n of them the batch of a step is n "
            f"times per_device_train_batch_size times gradient_accumulation_steps: multiply the latter by n"
        )


def attention(value: Any, draft: Draft) -> None:
    """Take over the implementation of attention where it means something on other machines too."""
    names = {
        "fa2": "flash_attention_2",
        "flash_attn": "flash_attention_2",
        "flash_attention": "flash_attention_2",
        "flash_attention_2": "flash_attention_2",
        "flash_attention_3": "flash_attention_3",
        "sdpa": "sdpa",
        "sdp_attention": "sdpa",
        "disabled": "eager",
        "eager": "eager",
        "eager_attention": "eager",
    }
    if value in (None, "auto"):
        return
    if str(value) in {"eager", "disabled", "eager_attention"}:
        draft.set("model.attn_implementation", "eager")
    elif str(value) in names or str(value).startswith(("flex", "xformers", "kernels-community")):
        draft.drop("attention", value, "forge takes the fastest that is there; the training is the same")
    else:
        draft.lack("attention", value, "unknown here; without it forge takes the fastest that is there")


def stored_in_4_bit(draft: Draft) -> None:
    """Tell of a base that is stored quantised: it can be trained on, and neither merged nor made a GGUF."""
    name = str(draft.get("model.id", ""))
    if name.endswith("-bnb-4bit"):
        plain = name.removesuffix("-bnb-4bit").removesuffix("-unsloth")
        draft.tell(
            f"{name} is stored in 4 bit: the adapter cannot be merged into it; {plain} with load_in_4bit = true trains "
            f"the same and can be merged"
        )
    elif name.lower().endswith(("-awq", "-gptq", "-gptq-int4", "-int4")):
        draft.tell(f"{name} is stored quantised: the adapter cannot be merged into it")


def rest(given: Given, draft: Draft, why: str) -> None:
    """Say of all that is left that it has no translation."""
    for name, value in given.rest():
        if value in (False, [], {}):
            draft.drop(name, value, "switched off")
        else:
            draft.lack(name, value, why)
