"""Says where a wish belongs that is not a key of ``[train]``.

Users bring arguments from scripts, other tools and other versions of trl. A key that forge does not take there is met
with the place where it belongs, never with a bare "unknown key".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.fields import committed, installed, table
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

_HUB = "uploads belong to [[export]] push_to_hub, after training, where a failed upload costs nothing"
_LAUNCH = "forge trains in one process so far; several belong to [launch], which forge does not have yet"
_ONE_PROCESS = "it concerns several processes, and forge trains in one so far"
_EVAL = "forge evaluates the loss and computes no other metric in the trainer, so it would do nothing"
_NOT_FLAGS = "it is a flag for scripts that the trainer ignores; what runs is decided by the job"
_RESUME = "forge resumes exactly where the run stopped; use `forge resume RUN`"
_ROWS = "forge makes the rows before the trainer sees them, so it would do nothing"
_CHECKPOINTING = "write gradient_checkpointing{}: the same setting by the name that every tested version knows"

OWNED: Mapping[str, str] = {
    "accelerator_config": _LAUNCH,
    "activation_checkpointing": _CHECKPOINTING.format(""),
    "activation_checkpointing_kwargs": _CHECKPOINTING.format("_kwargs"),
    "assistant_only_loss": 'belongs to [data] train_on = "assistant"',
    "auto_find_batch_size": "forge tries the longest batch before the first step instead; see [train] probe",
    "average_tokens_across_devices": _ONE_PROCESS,
    "batch_eval_metrics": _EVAL,
    "chat_template_path": "belongs to [data] chat_template",
    "completion_only_loss": 'belongs to [data] train_on = "completion"',
    "dataset_kwargs": _ROWS,
    "dataset_num_proc": _ROWS,
    "dataset_text_field": 'belongs to [data] columns: columns = { text = "…" }',
    "ddp_backend": _LAUNCH,
    "ddp_broadcast_buffers": _LAUNCH,
    "ddp_bucket_cap_mb": _LAUNCH,
    "ddp_find_unused_parameters": _LAUNCH,
    "ddp_static_graph": _LAUNCH,
    "ddp_timeout": _LAUNCH,
    "deepspeed": _LAUNCH,
    "disable_tqdm": "forge shows the progress itself",
    "do_eval": _NOT_FLAGS,
    "do_predict": _NOT_FLAGS,
    "do_train": _NOT_FLAGS,
    "enable_jit_checkpoint": "forge writes a checkpoint itself when the system asks it to stop",
    "eos_token": "the end of a turn comes from the chat template: [data] chat_template",
    "eval_accumulation_steps": _EVAL,
    "eval_do_concat_batches": _EVAL,
    "eval_packing": "belongs to [data] packing",
    "eval_use_gather_object": _EVAL,
    "fsdp": _LAUNCH,
    "fsdp_config": _LAUNCH,
    "hub_always_push": _HUB,
    "hub_model_id": _HUB,
    "hub_private_repo": "belongs to [[export]] private, beside push_to_hub",
    "hub_revision": _HUB,
    "hub_strategy": _HUB,
    "hub_token": "a secret does not belong into a job file; log in with `hf auth login` or set HF_TOKEN",
    "ignore_data_skip": _RESUME,
    "include_for_metrics": _EVAL,
    "label_names": _ROWS,
    "length_column_name": _ROWS,
    "local_rank": _LAUNCH,
    "log_level_replica": _ONE_PROCESS,
    "log_on_each_node": _ONE_PROCESS,
    "max_length": "belongs to [model] max_seq_length, the one length key",
    "model_init_kwargs": "belongs to [model]: dtype, attn_implementation, load_in_4bit, …",
    "log_completions": "write num_completions_to_print: forge shows the model's answers as events",
    "log_completions_hub_repo": _HUB,
    "log_multimodal": "forge shows the model's answers as text",
    "log_unique_prompts": "forge shows the model's answers one by one",
    "max_tool_calling_iterations": "forge gives the model no tools while it is trained",
    "output_dir": "forge decides the run folder; name the run with the top-level key `name`",
    "packing": "belongs to [data] packing",
    "packing_strategy": "belongs to [data] packing",
    "pad_token": "forge takes the padding token from the model's tokenizer",
    "padding_free": "belongs to [data] packing, the way to train without padding",
    "parallelism_config": _LAUNCH,
    "prediction_loss_only": _EVAL,
    "push_to_hub": _HUB,
    "padding_value": "forge takes the padding token from the model's tokenizer",
    "generate_during_eval": "belongs to [eval], which shows the model's answers before and after",
    "is_encoder_decoder": "it is read from the model",
    "remove_unused_columns": _ROWS,
    "restore_callback_states_from_checkpoint": _RESUME,
    "resume_from_checkpoint": _RESUME,
    "reward_weights": "belongs to [[train.reward]] weight",
    "save_on_each_node": _ONE_PROCESS,
    "save_only_model": "a checkpoint without the optimizer could not be resumed; bare weights are in the run folder",
    "shuffle_dataset": 'the sampler shuffles already; train_sampling_strategy = "sequential" keeps the order',
    "skip_memory_metrics": "forge measures the memory itself",
    "truncation_mode": "belongs to [data] on_long_row",
    "teacher_model_init_kwargs": "the teacher is loaded like the model: [model] dtype, attn_implementation",
    "transformers_continuous_batching_config": "forge takes the defaults of transformers",
    "trust_remote_code": "belongs to [model] trust_remote_code",
    "use_cache": "the trainer keeps the cache off while it trains",
}
"""Fields of trainers' configs that a job may not set, each with where the wish belongs or why it is forge's."""

_RENAMED = "it is deprecated; write {}"
OWNED_IN: Mapping[str, Mapping[str, str]] = {
    "CPOConfig": {"max_completion_length": "belongs to [model] max_seq_length, the one length key"},
    "DPOConfig": {"padding_free": "forge makes the batches, and those of pairs are padded"},
    "DistillationConfig": {"ds3_gather_for_generation": _LAUNCH},
    "GRPOConfig": {
        "ds3_gather_for_generation": _LAUNCH,
        "use_transformers_paged": _RENAMED.format("use_transformers_continuous_batching"),
        "vllm_importance_sampling_cap": _RENAMED.format("vllm_importance_sampling_clip_max"),
    },
    "ORPOConfig": {"max_completion_length": "belongs to [model] max_seq_length, the one length key"},
    "RLOOConfig": {
        "ds3_gather_for_generation": _LAUNCH,
        "use_transformers_paged": _RENAMED.format("use_transformers_continuous_batching"),
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

OWN: Mapping[str, frozenset[str]] = {name: frozenset({"reward", "collapse_patience"}) for name in ("grpo", "rloo")}
"""Keys that forge adds to a method's arguments."""

_ADAPTER = "belongs to [adapter] {}"
FOREIGN: Mapping[str, str] = {
    "alpha": _ADAPTER.format("lora_alpha"),
    "base_model": "belongs to [model] id",
    "batch_size": "write per_device_train_batch_size",
    "betas": "write adam_beta1 and adam_beta2",
    "chat_template": "belongs to [data] chat_template",
    "clip_range": "write epsilon",
    "cutoff_len": "belongs to [model] max_seq_length",
    "dataset": "belongs to [data] path",
    "dataset_name": "belongs to [data] path",
    "dataset_path": "belongs to [data] path",
    "dpo_beta": "write beta",
    "dropout": _ADAPTER.format("lora_dropout"),
    "early_stopping": "write early_stopping_patience",
    "epoch": "write num_train_epochs",
    "epochs": "write num_train_epochs",
    "eval_batch_size": "write per_device_eval_batch_size",
    "evaluation_strategy": "write eval_strategy",
    "flash_attention": 'belongs to [model] attn_implementation = "flash_attention_2"',
    "grad_accum": "write gradient_accumulation_steps",
    "gradient_accumulation": "write gradient_accumulation_steps",
    "gradient_clipping": "write max_grad_norm",
    "group_by_length": 'write train_sampling_strategy = "group_by_length"',
    "group_size": "write num_generations",
    "kl_coef": "write beta",
    "learn_rate": "write learning_rate",
    "load_in_4bit": "belongs to [model] load_in_4bit",
    "load_in_16bit": "belongs to [model] load_in_16bit",
    "load_in_8bit": "belongs to [model] load_in_8bit",
    "logging_dir": "forge decides the run folder; its events.jsonl has every number",
    "lora_alpha": _ADAPTER.format("lora_alpha"),
    "lora_dropout": _ADAPTER.format("lora_dropout"),
    "lora_r": _ADAPTER.format("r"),
    "lora_rank": _ADAPTER.format("r"),
    "lora_target_modules": _ADAPTER.format("target_modules"),
    "lr": "write learning_rate",
    "lr_scheduler": "write lr_scheduler_type",
    "max_new_tokens": "write max_completion_length",
    "max_prompt_length": "belongs to [model] max_seq_length, which holds the prompt and its answer",
    "max_seq_length": "belongs to [model] max_seq_length",
    "micro_batch_size": "write per_device_train_batch_size",
    "model": "belongs to [model] id",
    "model_name": "belongs to [model] id",
    "model_name_or_path": "belongs to [model] id",
    "n_epochs": "write num_train_epochs",
    "neftune_alpha": "write neftune_noise_alpha",
    "no_cuda": "write use_cpu = true",
    "num_epochs": "write num_train_epochs",
    "num_ppo_epochs": "write num_iterations",
    "num_workers": "write dataloader_num_workers",
    "optimizer": "write optim",
    "overwrite_output_dir": "every run has a folder of its own, so there is nothing to overwrite",
    "per_gpu_train_batch_size": "write per_device_train_batch_size",
    "pref_beta": "write beta",
    "pref_loss": "write loss_type",
    "r": _ADAPTER.format("r"),
    "random_state": "write seed",
    "rank": _ADAPTER.format("r"),
    "ref_model": "forge makes the reference itself: it is the model before training",
    "reward_funcs": "write [[train.reward]] with use, a table for each function",
    "rl_beta": "write beta",
    "rpo_alpha": 'write loss_type = ["sigmoid", "sft"], with loss_weights',
    "sample_packing": "belongs to [data] packing",
    "scheduler": "write lr_scheduler_type",
    "sequence_len": "belongs to [model] max_seq_length",
    "steps": "write max_steps",
    "target_modules": _ADAPTER.format("target_modules"),
    "teacher_model": "write teacher_model_name_or_path",
    "tokenizer": "it comes with the model: [model] id",
    "train_batch_size": "write per_device_train_batch_size",
    "train_on_responses_only": 'belongs to [data] train_on = "assistant"',
    "use_4bit": "belongs to [model] load_in_4bit",
    "use_gradient_checkpointing": "write gradient_checkpointing",
    "use_liger": "write use_liger_kernel",
    "val_set_size": "belongs to [data] eval_size",
    "wandb_project": 'write project and report_to = "wandb"',
    "warmup_ratio": "write warmup_steps with a number below 1: warmup_steps = 0.03 is 3 % of all steps",
}
"""What other tools, and older versions, call something, with what it is called here."""


def is_owned(name: str, config: str = "SFTConfig") -> bool:
    """Tell whether a field of a config is forge's."""
    return name in OWNED_IN.get(config, ()) or (name in OWNED and name not in FREE_IN.get(config, ()))


def hint(name: str, config: str = "SFTConfig") -> str | None:
    """Say what to do about a key of ``[train]`` that is not one: where it belongs, whose it is, or its name here."""
    said = OWNED_IN.get(config, {}).get(name) or (OWNED[name] if is_owned(name, config) else None)
    mine = name in table(config) or any(name in fields for fields in committed(config).values())
    if said and (mine or "[model]" in said):
        return said
    for versions, fields in committed(config).items():
        if name in fields and name not in table(config):
            return f"{versions} has it; {installed() or 'another version'} is installed"
    if name not in FOREIGN and (others := methods_with(name)):
        return f"{name} is an argument of {', '.join(others)}"
    if said and said.startswith("belongs"):
        configs = {each.name: each.config for each in METHODS.values() if name in table(each.config)}
        whose = [method for method, other in configs.items() if name not in OWNED_IN.get(other, ())]
        return f"it is about {', '.join(whose)}, and there it {said}" if whose else said
    if said := said or FOREIGN.get(name):
        right = said.removeprefix("write ").split(maxsplit=1)[0].rstrip(":") if said.startswith("write ") else ""
        if right in table(config):
            return hint(right, config) if is_owned(right, config) else said
        others = methods_with(right)
        return f"{right} is an argument of {', '.join(others)}" if others else said
    if name.startswith(("fsdp_", "ddp_", "deepspeed_")):
        return _LAUNCH
    return _HUB if name.startswith(("hub_", "push_to_hub")) else None


def methods_with(name: str) -> list[str]:
    """Return the methods under which a job may set an argument."""
    return [
        method.name
        for method in METHODS.values()
        if (name in table(method.config) and not is_owned(name, method.config)) or name in OWN.get(method.name, ())
    ]
