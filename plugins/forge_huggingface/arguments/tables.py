"""What the sources of trainers do not say about their arguments: forge's defaults, bounds, choices, short explanations.

The fields and their types come from the installed sources (:mod:`.fields`). These tables add what a user should be
told before a model is loaded. A name has one entry for all methods unless a method has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

DEFAULTS: Mapping[str, tuple[Any, str]] = {
    "bf16": (None, "by machine: TRL's true where the field is not set dies on a CPU and on GPUs older than Ampere"),
    "eval_strategy": (None, "by data: `epoch`, or `steps` beside `eval_steps`, if rows are held out; TRL's is `no`"),
    "fp16": (None, "by machine: true where there is a GPU without bfloat16"),
    "gradient_checkpointing": ("auto", "by memory: only where the training does not fit without; TRL's is true"),
    "logging_nan_inf_filter": (False, "a loss that is no number is shown as such: TRL's true shows 0 in its place"),
    "learning_rate": (None, "by adapter: TRL's for every weight, ten times that for LoRA, as its guide advises"),
    "loss_type": (None, "by version, the one that never holds all logits: `nll` since TRL 1.15, before `chunked_nll`"),
    "num_completions_to_print": (2, "TRL's null prints all of them; here it is how many answers each log shows"),
    "pad_to_multiple_of": (None, 'TRL 1.14\'s; 1.16 has "auto", the same but on Neuron, which forge does not know'),
    "save_total_limit": (2, "TRL keeps all: a long run fills the disk; two, so that a damaged one costs little"),
}
"""Where forge's default is not TRL's, and why. ``None`` is filled in by :func:`.options.filled_in`."""

DEFAULTS_IN: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "TrainingArguments": {"logging_steps": (10, "TRL's: transformers' 500 shows nothing of a short run")},
}
"""The same for configs that have another default than the others."""

OPEN = frozenset({"gradient_checkpointing", "per_device_train_batch_size"})
"""Arguments that may be ``"auto"`` too: the plan decides them by memory (:mod:`forge_huggingface.memory.fit`)."""

LORA_FACTOR = 10
"""How many times the learning rate of full fine-tuning LoRA takes, as TRL's documentation advises."""

LORA_FACTORS: Mapping[str, int] = {"RewardConfig": 1}
"""Where it takes another: TRL's rate for a reward model, 1e-4, is what TRL's own example takes for LoRA."""

MUON = "muon"
"""The optimizer that forge has beside transformers' own: torch's Muon for matrices, AdamW for the rest."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "cache_implementation": ("static", "offloaded_static", "dynamic", "offloaded", "quantized"),
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
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
    "vllm_mode": ("colocate", "server"),
    "vllm_model_impl": ("auto", "vllm", "transformers"),
}
"""Values that an argument takes where the sources say less than they check."""

HELP: Mapping[str, str] = {
    "bf16": "Mixed precision in bfloat16. Without it, by machine.",
    "eval_strategy": "When to evaluate. Without it, if rows are held out, `steps` beside `eval_steps`, else `epoch`.",
    "fp16": "Mixed precision in float16. Without it, by machine.",
    "gradient_checkpointing": (
        "Recompute activations in the backward pass: less memory, and a step takes up to 40 % longer. `auto` goes by "
        "the free memory."
    ),
    "gradient_checkpointing_kwargs": "Arguments for gradient checkpointing, such as `use_reentrant`.",
    "learning_rate": "Peak learning rate. Without it, TRL's for every weight and ten times that for LoRA.",
    "SFTConfig.loss_type": (
        "`nll` (negative log-likelihood) or `dft` (dynamic fine-tuning). Without it, nll without full logits."
    ),
    "max_steps": "Number of optimizer steps; -1 goes by `num_train_epochs`.",
    "per_device_train_batch_size": (
        "Rows of a batch. `auto`, and what `batch_size` leaves open, is the largest that fits and is still faster."
    ),
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
    "label_smoothing": {"ge": 0, "lt": 0.5},  # the share of pairs that are the wrong way round
    "label_smoothing_factor": {"ge": 0, "lt": 1},
    "ld_alpha": {"ge": 0, "le": 1},
    "learning_rate": {"ge": 0},
    "logging_steps": {"gt": 0},
    "max_completion_length": {"ge": 1},
    "max_grad_norm": {"ge": 0},
    "max_steps": {"ge": -1},
    "max_tool_calling_iterations": {"ge": 1},
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a schedule of the learning rate takes.

    Attributes:
        takes: The names in ``lr_scheduler_kwargs``.
        needs: Those of which it cannot do without one.
        warmup: Whether it begins with ``warmup_steps``.
    """

    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    warmup: bool = True


_MIN = ("min_lr", "min_lr_rate")

SCHEDULERS: Mapping[str, Schedule] = {
    "constant": Schedule(warmup=False),
    "constant_with_warmup": Schedule(),
    "cosine": Schedule(("num_cycles",)),
    "cosine_with_restarts": Schedule(("num_cycles",)),
    "cosine_with_min_lr": Schedule(("num_cycles", *_MIN), _MIN),
    "cosine_warmup_with_min_lr": Schedule(("num_cycles", *_MIN, "warmup_lr_rate"), _MIN),
    "greedy": Schedule(
        (
            "mode",
            "factor",
            "patience",
            "threshold",
            "threshold_mode",
            "cooldown",
            "warmup",
            "min_lr",
            "max_lr",
            "eps",
            "verbose",
            "smooth",
            "window_size",
            "reset_start",
        ),
        warmup=False,
    ),
    "inverse_sqrt": Schedule(("timescale",)),
    "linear": Schedule(),
    "polynomial": Schedule(("lr_end", "power")),
    "reduce_lr_on_plateau": Schedule(
        ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"), warmup=False
    ),
    "warmup_stable_decay": Schedule(
        ("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),
        ("num_decay_steps",),
    ),
}
"""By ``lr_scheduler_type``; ``last_epoch`` is left out everywhere, for forge resumes schedules itself."""

CHECKPOINTING = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop")
"""The names in ``gradient_checkpointing_kwargs``: those of ``torch.utils.checkpoint``."""

LIGER = (
    "cross_entropy",
    "fused_linear_cross_entropy",
    "geglu",
    "layer_norm",
    "relu_squared",
    "rms_norm",
    "rope",
    "swiglu",
)
"""The names in ``liger_kernel_config``; each architecture reads those that it has a kernel for."""

Kernel = Literal["loss", "lora", "swiglu", "norm", "rope", "mask"]

KERNELS: tuple[Kernel, ...] = get_args(Kernel)
"""The names in ``kernels``: the parts of a model that forge computes itself (:mod:`forge_huggingface.kernels`)."""

COMPILE: Mapping[str, tuple[str, ...]] = {
    "torch_compile_backend": (
        "inductor",
        "eager",
        "aot_eager",
        "cudagraphs",
        "openxla",
        "tvm",
        "hidet",
        "ipex",
        "onnxrt",
        "tensorrt",
        "thunder",
        "torch_tensorrt",
    ),
    "torch_compile_mode": (
        "default",
        "reduce-overhead",
        "max-autotune",
        "max-autotune-no-cudagraphs",
        "lite",
    ),
}
"""What ``torch.compile`` knows by name."""

CHECKPOINTED = ("every_n_layers", "offload")
"""Those of transformers beside them."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What an optimizer reads of the trainer's arguments.

    Attributes:
        betas: Whether it reads ``adam_beta1`` and ``adam_beta2``.
        epsilon: Whether it reads ``adam_epsilon``.
        warmup: Whether it reads ``warmup_steps``, whatever the schedule.
        targets: Whether it needs ``optim_target_modules``.
        takes: The names in ``optim_args``; None where it takes any.
    """

    betas: bool = False
    epsilon: bool = False
    warmup: bool = False
    targets: bool = False
    takes: tuple[str, ...] | None = ()


_ADAM = Optimizer(betas=True, epsilon=True)
_MIX = Optimizer(betas=True, epsilon=True, takes=("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"))
_FREE = ("weight_lr_power", "r")
_LOW_BIT = Optimizer(betas=True, epsilon=True, takes=("block_size", "bf16_stochastic_round"))

OPTIMIZERS: Mapping[str, Optimizer] = {
    "adafactor": Optimizer(),
    "adagrad": Optimizer(takes=("lr_decay", "weight_decay", "eps")),
    "adalomo": Optimizer(),
    "adamw_": _ADAM,
    "adamw_anyprecision": Optimizer(
        betas=True,
        epsilon=True,
        takes=("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
    ),
    "adamw_torch_4bit": _LOW_BIT,
    "adamw_torch_8bit": _LOW_BIT,
    "ademamix": _MIX,
    "apollo_": Optimizer(
        betas=True,
        epsilon=True,
        targets=True,
        takes=("rank", "proj", "scale_type", "update_proj_gap", "scale", "proj_type"),
    ),
    "galore_": Optimizer(targets=True, takes=("rank", "update_proj_gap", "scale", "proj_type")),
    MUON: _ADAM,
    "grokadamw": Optimizer(takes=("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping")),
    "lion_": Optimizer(betas=True),
    "lomo": Optimizer(),
    "paged_adamw_": _ADAM,
    "paged_ademamix_": _MIX,
    "paged_lion_": Optimizer(betas=True),
    "rmsprop": Optimizer(takes=("momentum", "alpha", "eps", "weight_decay", "centered")),
    "rmsprop_bnb": Optimizer(takes=None),
    "schedule_free_adamw": Optimizer(betas=True, epsilon=True, warmup=True, takes=_FREE),
    "schedule_free_radam": Optimizer(betas=True, epsilon=True, takes=_FREE),
    "schedule_free_sgd": Optimizer(warmup=True, takes=_FREE),
    "sgd": Optimizer(takes=("momentum", "dampening", "weight_decay", "nesterov")),
    "stable_adamw": Optimizer(betas=True, epsilon=True, takes=("max_lr", "kahan_sum", "decouple_lr")),
}
"""By how ``optim`` begins; the longest beginning holds. From transformers' ``trainer_optimizer.py``."""


def optimizer(name: str) -> Optimizer:
    """Return what an optimizer reads; of one that is not known, all."""
    begins = max((begin for begin in OPTIMIZERS if name.startswith(begin)), key=len, default=None)
    return OPTIMIZERS[begins] if begins else Optimizer(betas=True, epsilon=True, warmup=True, targets=True, takes=None)


def of(table: Mapping[str, Any], config: str, name: str, default: Any = None) -> Any:
    """Return an entry of one of these tables: the config's own, or the one for all."""
    return table.get(f"{config}.{name}", table.get(name, default))
