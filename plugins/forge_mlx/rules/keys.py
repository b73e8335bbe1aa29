"""The keys of ``[train]`` that the loop follows: transformers' and TRL's names and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEDULES = frozenset(
    {
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_warmup_with_min_lr",
        "cosine_with_min_lr",
        "cosine_with_restarts",
        "inverse_sqrt",
        "linear",
        "polynomial",
        "warmup_stable_decay",
    }
)
"""All of transformers' that follow from the step alone: its own functions are asked."""

OPTIMIZERS = frozenset(
    {
        "adafactor",
        "adagrad",
        "adamw_torch",
        "adamw_torch_fused",
        "lion_32bit",
        "paged_adamw_32bit",
        "paged_lion_32bit",
        "rmsprop",
        "sgd",
    }
)
"""Those that are the same here, to the rounding. Pages are for memory of a GPU's own."""

LOSSES: Mapping[str, frozenset[str]] = {
    "sft": frozenset({"nll", "chunked_nll"}),
    "dpo": frozenset(
        {
            "aot",
            "aot_unpaired",
            "apo_down",
            "apo_zero",
            "bco_pair",
            "discopop",
            "exo_pair",
            "hinge",
            "ipo",
            "nca_pair",
            "robust",
            "sft",
            "sigmoid",
            "sigmoid_norm",
            "sppo_hard",
        }
    ),
}
"""By method; ``nll`` and ``chunked_nll`` are one loss, computed in two ways."""

HONOURED = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "batch_size",
        "bf16",
        "data_seed",
        "eval_delay",
        "eval_on_start",
        "eval_steps",
        "eval_strategy",
        "fp16",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "greater_is_better",
        "learning_rate",
        "load_best_model_at_end",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "loss_type",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_grad_norm",
        "max_steps",
        "metric_for_best_model",
        "num_train_epochs",
        "optim",
        "per_device_eval_batch_size",
        "per_device_train_batch_size",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "seed",
        "train_sampling_strategy",
        "use_cpu",
        "warmup_steps",
        "weight_decay",
        # of dpo
        "beta",
        "disable_dropout",
        "discopop_tau",
        "label_smoothing",
        "loss_weights",
        # what the rows were rendered with
        "chat_template_kwargs",
    }
)
"""Keys that change what is trained and are followed. Others may only have the value that they have by themselves."""

ADAPTER = frozenset(
    {
        "alpha_pattern",
        "bias",
        "digest",
        "exclude_modules",
        "finetune_attention_modules",
        "finetune_language_layers",
        "finetune_mlp_modules",
        "finetune_vision_layers",
        "from_",
        "init_lora_weights",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "type",
        "use_dora",
        "use_rslora",
    }
)
"""The keys of ``[adapter]`` that are followed, or refused by a reason of their own: whatever else comes is not."""

MODEL = frozenset(
    {
        "attn_implementation",
        "dtype",
        "id",
        "load_in_16bit",
        "load_in_4bit",
        "load_in_8bit",
        "max_seq_length",
        "revision",
        "trust_remote_code",
    }
)
"""The same of ``[model]``."""

_MIXED = 'MLX has no mixed precision; write [model] dtype = "bfloat16" for a base in 16 bit'
NOT_SO: Mapping[str, tuple[Any, str]] = {
    "bf16": (True, _MIXED),
    "fp16": (True, _MIXED),
    "logging_nan_inf_filter": (True, "a loss that is no number ends the run"),
    "save_strategy": ("best", "the best weights are kept beside every checkpoint; write load_best_model_at_end"),
    "train_sampling_strategy": ("batch_rebalance", "one process trains"),
}
"""Single values of them that are not."""
