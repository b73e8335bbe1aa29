"""Says where a wish belongs that is not a key of ``[train]``.

Users bring arguments from scripts, other tools and other versions of trl. A key that forge does not take there is met
with the place where it belongs, never with a bare "unknown key".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forge.api import Hint
from forge_huggingface.arguments.fields import committed, installed, table
from forge_huggingface.methods import METHODS


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a key that is none of ``[train]``.

    Attributes:
        do: What to do, as a phrase.
        key: The argument that is meant, if it is one.
        table: The table that the wish belongs to, if it is another one.
    """

    do: str
    key: str | None = None
    table: str | None = None


def _renamed(key: str, words: str) -> Advice:
    return Advice(words.format(key), key)


_HUB = Advice("uploads belong to [[export]] push_to_hub, after training, where a failed upload costs nothing")
_LAUNCH = Advice("belongs to [launch]: processes, nodes, shard, timeout", table="launch")
_ONE_PROCESS = Advice("it concerns several processes, of which forge takes care; see [launch]")
_EVAL = Advice("forge evaluates the loss and computes no other metric in the trainer, so it would do nothing")
_NOT_FLAGS = Advice("it is a flag for scripts that the trainer ignores; what runs is decided by the job")
_RESUME = Advice("forge resumes exactly where the run stopped; use `forge resume RUN`")
_ROWS = Advice("forge makes the rows before the trainer sees them, so it would do nothing")
_SAME = "write {}: the same setting by the name that every tested version knows"
_DEPRECATED = "it is deprecated; write {}"

OWNED: Mapping[str, Advice] = {
    "accelerator_config": _LAUNCH,
    "activation_checkpointing": _renamed("gradient_checkpointing", _SAME),
    "activation_checkpointing_kwargs": _renamed("gradient_checkpointing_kwargs", _SAME),
    "assistant_only_loss": Advice('belongs to [data] train_on = "assistant"', table="data"),
    "auto_find_batch_size": Advice("forge tries the longest batch before the first step instead; see [train] probe"),
    "average_tokens_across_devices": _ONE_PROCESS,
    "batch_eval_metrics": _EVAL,
    "chat_template_path": Advice("belongs to [data] chat_template", table="data"),
    "completion_only_loss": Advice('belongs to [data] train_on = "completion"', table="data"),
    "dataset_kwargs": _ROWS,
    "dataset_num_proc": _ROWS,
    "dataset_text_field": Advice('belongs to [data] columns: columns = { text = "…" }', table="data"),
    "ddp_backend": _LAUNCH,
    "ddp_broadcast_buffers": _LAUNCH,
    "ddp_bucket_cap_mb": _LAUNCH,
    "ddp_find_unused_parameters": _LAUNCH,
    "ddp_static_graph": _LAUNCH,
    "ddp_timeout": _LAUNCH,
    "deepspeed": _LAUNCH,
    "disable_tqdm": Advice("forge shows the progress itself"),
    "do_eval": _NOT_FLAGS,
    "do_predict": _NOT_FLAGS,
    "do_train": _NOT_FLAGS,
    "enable_jit_checkpoint": Advice("forge writes a checkpoint itself when the system asks it to stop"),
    "eos_token": Advice("belongs to [model] eos_token", table="model"),
    "eval_accumulation_steps": _EVAL,
    "eval_do_concat_batches": _EVAL,
    "eval_packing": Advice("belongs to [data] packing", table="data"),
    "eval_use_gather_object": _EVAL,
    "fsdp": _LAUNCH,
    "fsdp_config": _LAUNCH,
    "hub_always_push": _HUB,
    "hub_model_id": _HUB,
    "hub_private_repo": Advice("belongs to [[export]] private, beside push_to_hub", table="export"),
    "hub_revision": _HUB,
    "hub_strategy": _HUB,
    "hub_token": Advice("a secret does not belong into a job file; log in with `hf auth login` or set HF_TOKEN"),
    "ignore_data_skip": _RESUME,
    "include_for_metrics": _EVAL,
    "label_names": _ROWS,
    "length_column_name": _ROWS,
    "local_rank": _LAUNCH,
    "log_level_replica": _ONE_PROCESS,
    "log_on_each_node": _ONE_PROCESS,
    "max_length": Advice("belongs to [model] max_seq_length, the one length key", table="model"),
    "model_init_kwargs": Advice("belongs to [model]: dtype, attn_implementation, load_in_4bit, …", table="model"),
    "log_completions": Advice(
        "write num_completions_to_print: forge shows the model's answers as events", "num_completions_to_print"
    ),
    "log_completions_hub_repo": _HUB,
    "log_multimodal": Advice("forge shows the model's answers as text"),
    "log_unique_prompts": Advice("forge shows the model's answers one by one"),
    "output_dir": Advice("forge decides the run folder; name the run with the top-level key `name`"),
    "packing": Advice("belongs to [data] packing", table="data"),
    "packing_strategy": Advice("belongs to [data] packing", table="data"),
    "pad_token": Advice("belongs to [model] pad_token", table="model"),
    "padding_free": Advice("belongs to [data] padding_free", table="data"),
    "parallelism_config": _LAUNCH,
    "prediction_loss_only": _EVAL,
    "push_to_hub": _HUB,
    "padding_value": Advice("forge takes the padding token from the model's tokenizer"),
    "generate_during_eval": Advice("belongs to [eval], which shows the model's answers before and after", table="eval"),
    "is_encoder_decoder": Advice("it is read from the model"),
    "remove_unused_columns": _ROWS,
    "restore_callback_states_from_checkpoint": _RESUME,
    "resume_from_checkpoint": _RESUME,
    "reward_weights": Advice("belongs to [[train.reward]] weight", table="train.reward"),
    "save_on_each_node": _ONE_PROCESS,
    "save_only_model": Advice(
        "a checkpoint without the optimizer could not be resumed; bare weights are in the run folder"
    ),
    "shuffle_dataset": Advice('the sampler shuffles already; train_sampling_strategy = "sequential" keeps the order'),
    "skip_memory_metrics": Advice("forge measures the memory itself"),
    "truncation_mode": Advice("belongs to [data] on_long_row", table="data"),
    "teacher_model_init_kwargs": Advice("the teacher is loaded like the model: [model] dtype, attn_implementation"),
    "transformers_continuous_batching_config": Advice("forge takes the defaults of transformers"),
    "trust_remote_code": Advice("belongs to [model] trust_remote_code", table="model"),
    "use_cache": Advice("the trainer keeps the cache off while it trains"),
}
"""Fields of trainers' configs that a job may not set, each with where the wish belongs or why it is forge's."""

OWNED_IN: Mapping[str, Mapping[str, Advice]] = {
    "CPOConfig": {
        "max_completion_length": Advice("belongs to [model] max_seq_length, the one length key", table="model")
    },
    "DPOConfig": {"padding_free": Advice("forge makes the batches, and those of pairs are padded")},
    "DistillationConfig": {
        "ds3_gather_for_generation": _LAUNCH,
        "max_tool_calling_iterations": Advice('it is for method = "grpo", in which the model may call tools'),
    },
    "GRPOConfig": {
        "ds3_gather_for_generation": _LAUNCH,
        "use_transformers_paged": _renamed("use_transformers_continuous_batching", _DEPRECATED),
        "vllm_importance_sampling_cap": _renamed("vllm_importance_sampling_clip_max", _DEPRECATED),
    },
    "ORPOConfig": {
        "max_completion_length": Advice("belongs to [model] max_seq_length, the one length key", table="model")
    },
    "RLOOConfig": {
        "ds3_gather_for_generation": _LAUNCH,
        "use_transformers_paged": _renamed("use_transformers_continuous_batching", _DEPRECATED),
    },
}
"""The same for fields that other configs let a job set."""

FREE_IN: Mapping[str, frozenset[str]] = {
    name: frozenset({"shuffle_dataset"}) for name in ("DistillationConfig", "GRPOConfig", "RLOOConfig")
}  # their own sampler asks for it
"""Fields of :data:`OWNED` that these configs let a job set after all."""

NEUTRAL: Mapping[str, Any] = {
    "dataset_kwargs": {"skip_prepare_dataset": True},  # forge's collate stage has made the rows
    "disable_tqdm": True,  # forge shows the progress from events
    "log_completions": False,  # forge shows them as events
    "max_length": None,  # forge has cut the rows; TRL's 1024 would cut them again
    "remove_unused_columns": False,  # a column that the collator wants is not one that the model knows
}
"""What the trainer gets for owned fields where TRL's default would interfere; all other owned fields keep TRL's."""

REWARD_KEYS = frozenset({"reward", "collapse_patience"})
"""Keys of forge that no trainer knows, for methods that learn from rewards."""

LABEL_KEYS = frozenset({"labels", "problem_type"})
"""Keys of forge that no trainer knows, for classifiers."""

TEACHER_KEYS = frozenset({"lmbda", "seq_kd"})
"""Keys that TRL has under GKD alone, for methods that learn from a teacher."""

ACTING_KEYS = frozenset({"tools", "environment"})
"""Keys of forge that no trainer's arguments have, for methods whose model may call something."""

OWN: Mapping[str, frozenset[str]] = {
    name: frozenset({"batch_size", "kernels", "learning_rates", "loraplus_lr_ratio"})
    | (REWARD_KEYS if method.rewards else frozenset())
    | (LABEL_KEYS if method.head == "classification" else frozenset())
    | (TEACHER_KEYS if method.teacher else frozenset())
    | (ACTING_KEYS if method.acts else frozenset())
    for name, method in METHODS.items()
}
"""Keys that forge adds to a method's arguments."""

FOREIGN: Mapping[str, Advice] = {
    "alpha": Advice("belongs to [adapter] lora_alpha", table="adapter"),
    "base_model": Advice("belongs to [model] id", table="model"),
    "betas": Advice("write adam_beta1 and adam_beta2", "adam_beta1"),
    "chat_template": Advice("belongs to [data] chat_template", table="data"),
    "clip_range": Advice("write epsilon", "epsilon"),
    "cutoff_len": Advice("belongs to [model] max_seq_length", table="model"),
    "dataset": Advice("belongs to [data] path", table="data"),
    "dataset_name": Advice("belongs to [data] path", table="data"),
    "dataset_path": Advice("belongs to [data] path", table="data"),
    "dpo_beta": Advice("write beta", "beta"),
    "dropout": Advice("belongs to [adapter] lora_dropout", table="adapter"),
    "early_stopping": Advice("write early_stopping_patience", "early_stopping_patience"),
    "epoch": Advice("write num_train_epochs", "num_train_epochs"),
    "epochs": Advice("write num_train_epochs", "num_train_epochs"),
    "eval_batch_size": Advice("write per_device_eval_batch_size", "per_device_eval_batch_size"),
    "evaluation_strategy": Advice("write eval_strategy", "eval_strategy"),
    "cutoff_length": Advice("belongs to [model] max_seq_length", table="model"),
    "do_sample": Advice("belongs to [generation], for chats and evaluation"),
    "finetuning_type": Advice("belongs to [adapter] type", table="adapter"),
    "flash_attn": Advice('belongs to [model] attn_implementation = "flash_attention_2"', table="model"),
    "flash_attention": Advice('belongs to [model] attn_implementation = "flash_attention_2"', table="model"),
    "grad_accum": Advice("write gradient_accumulation_steps", "gradient_accumulation_steps"),
    "gradient_accumulation": Advice("write gradient_accumulation_steps", "gradient_accumulation_steps"),
    "gradient_clipping": Advice("write max_grad_norm", "max_grad_norm"),
    "group_by_length": Advice('write train_sampling_strategy = "group_by_length"', "train_sampling_strategy"),
    "group_size": Advice("write num_generations", "num_generations"),
    "kl_coef": Advice("write beta", "beta"),
    "learn_rate": Advice("write learning_rate", "learning_rate"),
    "load_in_4bit": Advice("belongs to [model] load_in_4bit", table="model"),
    "load_in_16bit": Advice("belongs to [model] load_in_16bit", table="model"),
    "load_in_8bit": Advice("belongs to [model] load_in_8bit", table="model"),
    "logging_dir": Advice("forge decides the run folder; its events.jsonl has every number"),
    "lora_alpha": Advice("belongs to [adapter] lora_alpha", table="adapter"),
    "lora_dropout": Advice("belongs to [adapter] lora_dropout", table="adapter"),
    "lora_r": Advice("belongs to [adapter] r", table="adapter"),
    "lora_rank": Advice("belongs to [adapter] r", table="adapter"),
    "lora_target_modules": Advice("belongs to [adapter] target_modules", table="adapter"),
    "lr": Advice("write learning_rate", "learning_rate"),
    "lr_scheduler": Advice("write lr_scheduler_type", "lr_scheduler_type"),
    "lora_target": Advice("belongs to [adapter] target_modules", table="adapter"),
    "max_samples": Advice("belongs to [data] max_rows", table="data"),
    "max_new_tokens": Advice("write max_completion_length", "max_completion_length"),
    "max_prompt_length": Advice(
        "belongs to [model] max_seq_length, which holds the prompt and its answer", table="model"
    ),
    "max_seq_length": Advice("belongs to [model] max_seq_length", table="model"),
    "micro_batch_size": Advice("write per_device_train_batch_size", "per_device_train_batch_size"),
    "model": Advice("belongs to [model] id", table="model"),
    "model_name": Advice("belongs to [model] id", table="model"),
    "model_name_or_path": Advice("belongs to [model] id", table="model"),
    "n_epochs": Advice("write num_train_epochs", "num_train_epochs"),
    "neftune_alpha": Advice("write neftune_noise_alpha", "neftune_noise_alpha"),
    "no_cuda": Advice("write use_cpu = true", "use_cpu"),
    "num_epochs": Advice("write num_train_epochs", "num_train_epochs"),
    "num_ppo_epochs": Advice("write num_iterations", "num_iterations"),
    "num_workers": Advice("write dataloader_num_workers", "dataloader_num_workers"),
    "optimizer": Advice("write optim", "optim"),
    "overwrite_output_dir": Advice("every run has a folder of its own, so there is nothing to overwrite"),
    "per_gpu_train_batch_size": Advice("write per_device_train_batch_size", "per_device_train_batch_size"),
    "pref_beta": Advice("write beta", "beta"),
    "pref_loss": Advice("write loss_type", "loss_type"),
    "r": Advice("belongs to [adapter] r", table="adapter"),
    "random_state": Advice("write seed", "seed"),
    "rank": Advice("belongs to [adapter] r", table="adapter"),
    "ref_model": Advice("forge makes the reference itself: it is the model before training"),
    "reward_funcs": Advice("write [[train.reward]] with use, a table for each function"),
    "rl_beta": Advice("write beta", "beta"),
    "rpo_alpha": Advice('write loss_type = ["sigmoid", "sft"], with loss_weights', "loss_type"),
    "sample_packing": Advice("belongs to [data] packing", table="data"),
    "scheduler": Advice("write lr_scheduler_type", "lr_scheduler_type"),
    "sequence_len": Advice("belongs to [model] max_seq_length", table="model"),
    "steps": Advice("write max_steps", "max_steps"),
    "target_modules": Advice("belongs to [adapter] target_modules", table="adapter"),
    "teacher_model": Advice("write teacher_model_name_or_path", "teacher_model_name_or_path"),
    "tokenizer": Advice("it comes with the model: [model] id"),
    "train_batch_size": Advice("write per_device_train_batch_size", "per_device_train_batch_size"),
    "train_on_responses_only": Advice('belongs to [data] train_on = "assistant"', table="data"),
    "unsloth": Advice('belongs to [use] backend = "unsloth"'),
    "use_4bit": Advice("belongs to [model] load_in_4bit", table="model"),
    "use_gradient_checkpointing": Advice("write gradient_checkpointing", "gradient_checkpointing"),
    "use_loftq": Advice("belongs to [adapter] init_lora_weights", table="adapter"),
    "use_peft": Advice("belongs to [adapter] type", table="adapter"),
    "use_liger": Advice("write use_liger_kernel", "use_liger_kernel"),
    "val_set_size": Advice("belongs to [data] eval_size", table="data"),
    "wandb_project": Advice('write project and report_to = "wandb"', "project"),
    "warmup_ratio": Advice(
        "write warmup_steps with a number below 1: warmup_steps = 0.03 is 3 % of all steps", "warmup_steps"
    ),
    "datasets": Advice("belongs to [data] path, or to [[data.sources]] where there are several", table="data"),
    "device_map": Advice("forge places the model itself"),
    "embedding_learning_rate": Advice('write learning_rates = { "embed_tokens|lm_head" = … }', "learning_rates"),
    "evals_per_epoch": Advice("write eval_steps with a share of all steps, as 0.1", "eval_steps"),
    "fast_inference": Advice("belongs to [plugins.unsloth-text] fast_inference"),
    "full_finetuning": Advice('belongs to [adapter] type = "none"', table="adapter"),
    "galore": Advice('write optim = "galore_adamw" and optim_target_modules = "all-linear"', "optim"),
    "include_tokens_per_second": Advice("forge shows the tokens of each second anyway"),
    "lora_modules_to_save": Advice("belongs to [adapter] modules_to_save", table="adapter"),
    "lorap_lr_ratio": Advice("write loraplus_lr_ratio", "loraplus_lr_ratio"),
    "lr_groups": Advice("write learning_rates = { NAME = RATE }", "learning_rates"),
    "max_lora_rank": Advice("belongs to [adapter] r", table="adapter"),
    "overwrite_cache": Advice("forge makes the rows anew for every run"),
    "pad_to_sequence_len": Advice("write pad_to_multiple_of", "pad_to_multiple_of"),
    "profiler": Advice("forge has none: a run's events, and `forge report`, tell times and memory"),
    "pure_bf16": Advice('belongs to [model] dtype = "bfloat16"', table="model"),
    "rope_scaling": Advice("belongs to [model] config = { rope_scaling = { … } }", table="model"),
    "save_safetensors": Advice("weights are always saved as safetensors"),
    "saves_per_epoch": Advice("write save_steps with a share of all steps, as 0.1", "save_steps"),
    "sequence_parallel_degree": _LAUNCH,
    "special_tokens": Advice("belongs to [model]: add_special_tokens, pad_token, eos_token", table="model"),
    "strict": Advice("a job's keys are always checked"),
    "wandb_name": Advice('write run_name and report_to = "wandb"', "run_name"),
    "xformers": Advice('belongs to [model] attn_implementation = "sdpa"', table="model"),
}
"""What other tools, and older versions, call something, with what it is called here."""


def is_owned(name: str, config: str = "SFTConfig") -> bool:
    """Tell whether a field of a config is forge's."""
    return name in OWNED_IN.get(config, ()) or (name in OWNED and name not in FREE_IN.get(config, ()))


def hint(name: str, config: str = "SFTConfig") -> Hint | None:
    """Say what to do about a key of ``[train]`` that is not one: where it belongs, whose it is, or its name here."""
    said = OWNED_IN.get(config, {}).get(name) or (OWNED[name] if is_owned(name, config) else None)
    mine = name in table(config) or any(name in fields for fields in committed(config).values())
    if said and (mine or said.table == "model"):
        return Hint(said.do, said.key)
    for versions, fields in committed(config).items():
        if name in fields and name not in table(config):
            return Hint(f"{versions} has it; {installed() or 'another version'} is installed")
    if name not in FOREIGN and (others := methods_with(name)):
        return Hint(f"{name} is an argument of {', '.join(others)}")
    if said and said.table:
        configs = {each.name: each.config for each in METHODS.values() if name in table(each.config)}
        whose = [method for method, other in configs.items() if name not in OWNED_IN.get(other, ())]
        return Hint(f"it is about {', '.join(whose)}, and there it {said.do}" if whose else said.do)
    if said := said or FOREIGN.get(name):
        return _of_advice(said, config)
    if name.startswith(("fsdp_", "ddp_", "deepspeed_")):
        return Hint(_LAUNCH.do)
    return Hint(_HUB.do) if name.startswith(("hub_", "push_to_hub")) else None


def _of_advice(said: Advice, config: str) -> Hint | None:
    """Return advice as a hint under a method: the argument that it names may be another method's, or forge's."""
    if said.key in table(config):
        return hint(said.key, config) if is_owned(said.key, config) else Hint(said.do, said.key)
    others = methods_with(said.key) if said.key else []
    if any(METHODS[name].config == config for name in others):  # one of forge's own
        return Hint(said.do, said.key)
    return Hint(f"{said.key} is an argument of {', '.join(others)}" if others else said.do)


def methods_with(name: str) -> list[str]:
    """Return the methods under which a job may set an argument."""
    return [
        method.name
        for method in METHODS.values()
        if (name in table(method.config) and not is_owned(name, method.config)) or name in OWN.get(method.name, ())
    ]
