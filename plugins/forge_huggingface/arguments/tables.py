"""What the sources of trainers do not say about their arguments: forge's defaults, bounds, choices, short explanations.

The fields and their types come from the installed sources (:mod:`.fields`). These tables add what a user should be
told before a model is loaded. A name has one entry for all methods unless a method has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, tuple[Any, str]] = {
    "bf16": (None, "by machine: TRL's true where the field is not set dies on a CPU and on GPUs older than Ampere"),
    "eval_strategy": (None, "by data: `epoch` where there are held-out rows; TRL's `no` would leave them unused"),
    "fp16": (None, "by machine: true where there is a GPU without bfloat16"),
    "learning_rate": (None, "by adapter: TRL's for every weight, ten times that for LoRA, as its guide advises"),
    "loss_type": (None, "by version, the one that never holds all logits: `nll` since TRL 1.15, before `chunked_nll`"),
    "num_completions_to_print": (2, "TRL's null prints all of them; here it is how many answers each log shows"),
    "pad_to_multiple_of": (None, 'TRL 1.14\'s; 1.16 has "auto", the same but on Neuron, which forge does not know'),
    "save_total_limit": (2, "TRL keeps all: a long run fills the disk; two, so that a damaged one costs little"),
}
"""Where forge's default is not TRL's, and why. ``None`` is filled in by :func:`.options.filled_in`."""

LORA_FACTOR = 10
"""How many times the learning rate of full fine-tuning LoRA takes, as TRL's documentation advises."""

LORA_FACTORS: Mapping[str, int] = {"RewardConfig": 1}
"""Where it takes another: TRL's rate for a reward model, 1e-4, is what TRL's own example takes for LoRA."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "debug": ("", "underflow_overflow"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
    "log_level": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "SFTConfig.loss_type": ("nll", "dft", "chunked_nll"),
    "DPOConfig.loss_type": (
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft",
        "sigmoid_norm",
    ),
    "DPOConfig.f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    "KTOConfig.loss_type": ("kto", "apo_zero_unpaired"),
    "CPOConfig.loss_type": ("sigmoid", "hinge", "ipo", "simpo"),
    "GRPOConfig.loss_type": (
        "dapo",
        "grpo",
        "dr_grpo",
        "bnpo",
        "cispo",
        "sapo",
        "luspo",
        "vespo",
    ),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "scale_rewards": ("group", "batch", "none"),
    "vllm_mode": ("colocate", "server"),
}
"""Values that an argument takes where the sources say less than they check."""

HELP: Mapping[str, str] = {
    "bf16": "Mixed precision in bfloat16. Without it, by machine.",
    "eval_strategy": "When to evaluate: `no`, `steps` or `epoch`. Without it, `epoch` if there are held-out rows.",
    "fp16": "Mixed precision in float16. Without it, by machine.",
    "gradient_checkpointing": "Recompute activations in the backward pass: less memory, about 20 % slower.",
    "gradient_checkpointing_kwargs": "Arguments for gradient checkpointing, such as `use_reentrant`.",
    "learning_rate": "Peak learning rate. Without it, TRL's for every weight and ten times that for LoRA.",
    "SFTConfig.loss_type": (
        "`nll` (negative log-likelihood) or `dft` (dynamic fine-tuning). Without it, nll without full logits."
    ),
    "max_steps": "Number of optimizer steps; -1 goes by `num_train_epochs`.",
    "num_completions_to_print": "How many of the model's answers each log shows; 0 for none.",
    "save_total_limit": "How many checkpoints to keep, besides the best. forge rotates them, after each is whole.",
    "warmup_steps": "Steps in which the learning rate rises from 0; below 1 a share of all steps.",
}

BOUNDS: Mapping[str, Mapping[str, float]] = {
    "adam_beta1": {"ge": 0, "lt": 1},
    "adam_beta2": {"ge": 0, "lt": 1},
    "adam_epsilon": {"ge": 0},
    "beta": {"ge": 0},
    "center_rewards_coefficient": {"ge": 0},
    "data_seed": {"ge": 0, "le": 2**32 - 1},
    "dataloader_num_workers": {"ge": 0},
    "dataloader_prefetch_factor": {"ge": 1},
    "delta": {"gt": 0},
    "desirable_weight": {"ge": 0},
    "DistillationConfig.beta": {"ge": 0, "le": 1},
    "epsilon": {"gt": 0},
    "epsilon_high": {"gt": 0},
    "eval_delay": {"ge": 0},
    "eval_steps": {"gt": 0},
    "generation_batch_size": {"ge": 1},
    "gradient_accumulation_steps": {"ge": 1},
    "label_smoothing": {"ge": 0, "lt": 1},
    "label_smoothing_factor": {"ge": 0, "lt": 1},
    "ld_alpha": {"ge": 0, "le": 1},
    "learning_rate": {"ge": 0},
    "logging_steps": {"gt": 0},
    "max_completion_length": {"ge": 1},
    "max_grad_norm": {"ge": 0},
    "max_steps": {"ge": -1},
    "min_p": {"ge": 0, "le": 1},
    "neftune_noise_alpha": {"ge": 0},
    "num_completions_to_print": {"ge": 0},
    "num_generations": {"ge": 2},
    "num_generations_eval": {"ge": 1},
    "num_iterations": {"ge": 1},
    "num_train_epochs": {"gt": 0},
    "pad_to_multiple_of": {"ge": 1},
    "per_device_eval_batch_size": {"ge": 1},
    "per_device_train_batch_size": {"ge": 1},
    "precompute_ref_batch_size": {"ge": 1},
    "ref_model_mixup_alpha": {"ge": 0, "le": 1},
    "ref_model_sync_steps": {"ge": 1},
    "repetition_penalty": {"gt": 0},
    "router_aux_loss_coef": {"ge": 0},
    "save_steps": {"gt": 0},
    "save_total_limit": {"ge": 2},  # the newest may be the one that a power cut damaged
    "seed": {"ge": 0, "le": 2**32 - 1},  # numpy takes no larger one
    "steps_per_generation": {"ge": 1},
    "temperature": {"gt": 0},
    "top_entropy_quantile": {"gt": 0, "le": 1},
    "top_k": {"ge": 0},
    "top_p": {"gt": 0, "le": 1},
    "torch_empty_cache_steps": {"ge": 1},
    "undesirable_weight": {"ge": 0},
    "vllm_gpu_memory_utilization": {"gt": 0, "le": 1},
    "warmup_steps": {"ge": 0},
    "weight_decay": {"ge": 0},
}

SCHEDULERS: Mapping[str, tuple[str, ...]] = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
"""What a schedule cannot do without, in ``lr_scheduler_kwargs``: one of these."""


def of(table: Mapping[str, Any], config: str, name: str, default: Any = None) -> Any:
    """Return an entry of one of these tables: the config's own, or the one for all."""
    return table.get(f"{config}.{name}", table.get(name, default))
