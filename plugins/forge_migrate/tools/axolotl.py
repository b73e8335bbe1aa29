"""Axolotl's YAML (``src/axolotl/utils/schemas``, ``core/builders/base.py``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate import common, trained
from forge_migrate.draft import Given, numeric, truth
from forge_migrate.tools.axolotl_rows import rows

if TYPE_CHECKING:
    from forge_migrate.draft import Draft

NAME = "Axolotl"

METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dpo": ("dpo", {}),
    "ipo": ("dpo", {"loss_type": ["ipo"]}),
    "kto": ("kto", {}),
    "orpo": ("orpo", {}),
    "simpo": ("cpo", {"loss_type": "simpo"}),
    "grpo": ("grpo", {}),
    "gdpo": ("grpo", {"multi_objective_aggregation": "normalize_then_sum"}),
}
"""``rl``: forge's method, and what it needs to be the same."""

RENAMED: Mapping[str, str] = {
    "micro_batch_size": "train.per_device_train_batch_size",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "num_epochs": "train.num_train_epochs",
    "optimizer": "train.optim",
    "lr_scheduler": "train.lr_scheduler_type",
    "simpo_gamma": "train.simpo_gamma",
    "kto_desirable_weight": "train.desirable_weight",
    "kto_undesirable_weight": "train.undesirable_weight",
    "dpo_loss_type": "train.loss_type",
    "dpo_loss_weights": "train.loss_weights",
    "dpo_label_smoothing": "train.label_smoothing",
    "dpo_use_weighting": "train.use_weighting",
    "revision_of_model": "model.revision",
    "sequence_len": "model.max_seq_length",
}

DROPPED: Mapping[str, str] = {
    "model_type": "forge takes the class that the model's config names",
    "tokenizer_type": "forge takes the tokenizer of the model",
    "processor_type": "forge takes the processor of the model",
    "is_llama_derived_model": "forge goes by the model's config",
    "dataset_prepared_path": "rows are made anew",
    "dataset_processes": "forge makes rows in one process",
    "dataset_num_proc": "forge makes rows in one process",
    "skip_prepare_dataset": "rows are made by forge",
    "eval_sample_packing": "held-out rows are packed as the others are, or not; their loss is the same",
    "pad_to_sequence_len": "rows need not be filled up",
    "auto_resume_from_checkpoints": "`forge resume RUN` goes on",
    "hub_strategy": "checkpoints are not uploaded",
    "strict": "every key is checked always",
    "debug": "the screen's",
    "lora_mlp_kernel": "speed only; forge has kernels of its own",
    "lora_qkv_kernel": "speed only; forge has kernels of its own",
    "lora_o_kernel": "speed only; forge has kernels of its own",
    "use_kernels": "speed only; forge has kernels of its own",
    "wandb_entity": "the environment's: WANDB_ENTITY",
    "wandb_watch": "the environment's: WANDB_WATCH",
    "wandb_log_model": "the environment's: WANDB_LOG_MODEL",
    "wandb_mode": "the environment's: WANDB_MODE",
    "sample_packing_eff_est": "packing needs no estimate",
    "sample_packing_group_size": "packing needs no group",
    "sample_packing_bin_size": "packing needs no bins",
    "sample_packing_sequentially": "speed only",
    "streaming_multipack_buffer_size": "forge packs a stream by a buffer of its own",
    "flex_attn_compile_kwargs": "speed only",
    "loss_watchdog_patience": "a loss that is no number, or explodes, is told",
    "loss_watchdog_threshold": "a loss that is no number, or explodes, is told",
    "experimental_skip_move_to_device": "memory only",
    "low_cpu_mem_usage": "memory only",
    "fused_attn_kernel": "speed only; forge has kernels of its own",
    "cut_cross_entropy": "speed only; forge's own loss needs no logits either",
}


def translate(given: Given, draft: Draft) -> None:
    """Write a job that trains as an Axolotl configuration does."""
    draft.set("model.id", given.take("base_model"))
    common.stored_in_4_bit(draft)
    if truth(given.take("trust_remote_code")):
        draft.set("model.trust_remote_code", value=True)
    if given.take("model_quantization_config") is not None:
        how = given.take("model_quantization_config_kwargs") or {}
        draft.set("model.dequantize", truth(how.get("dequantize")))
    _method(given, draft)
    for theirs, ours in RENAMED.items():
        if theirs in given:
            draft.set(ours, numeric(given.take(theirs)))
    if draft.get("train.optim") == "muon":
        del draft.tables["train"]["optim"]
        draft.lack("optimizer", "muon", "its steps have another length there than Muon's here: write a rate for it")
    _adapter(given, draft)
    rows(given, draft)
    _steps(given, draft)
    offloading = given.take("activation_offloading")
    if offloading:
        draft.drop("activation_offloading", offloading, "memory only; forge decides what is made again")
    common.same(given, draft)
    common.precision(given, draft)
    common.lora_plus(given, draft)
    if (rate := given.number("embedding_lr")) is not None:
        draft.set("train.learning_rates", {"embed_tokens|lm_head|modules_to_save": rate})
    common.checkpointing(given, draft)
    _attention(given, draft)
    _evaluation(given, draft)
    _trackers(given, draft)
    _export(given, draft)
    common.secrets(given, draft)
    common.processes(given, draft, {name: given.take(name) for name in ("fsdp_config", "use_ray")})
    for name, why in DROPPED.items():
        if name in given:
            draft.drop(name, given.take(name), why)
    for name, value in given.starting("swanlab_"):
        draft.drop(name, value, "the environment's")
    for name, value in given.starting("liger_"):
        draft.drop(name, value, "speed only; forge has kernels of its own")
    common.bookkeeping(given, draft)
    _plugins(given, draft)
    common.rest(given, draft, "forge has nothing of the kind, or Axolotl has no such key (it passes over those)")
    _defaults(draft)


def _method(given: Given, draft: Draft) -> None:
    rl = given.take("rl")
    method, more = "sft", dict[str, Any]()
    if rl is not None and rl not in METHODS:
        draft.lack("rl", rl, "forge has no such method")
    elif rl is not None:
        method, more = METHODS[rl][0], dict(METHODS[rl][1])
    if truth(given.take("reward_model")):
        method = "reward"
    draft.set("train.method", method)
    for key, value in more.items():
        draft.set(f"train.{key}", value, f'rl = "{rl}" there')
    beta, orpo = given.number("rl_beta"), given.number("orpo_alpha")
    table = Given(given.take("trl") or {}, "trl.")
    if rl is not None and rl not in METHODS:
        list(table.rest())  # of a method that is not here
    inner = table.number("beta")
    draft.set("train.beta", next((value for value in (inner, beta, orpo) if value is not None), None))
    if rl == "simpo":
        alpha = given.number("cpo_alpha")
        draft.set(
            "train.cpo_alpha", 1.0 if alpha is None else alpha, "1.0 where it is not set there, which SimPO's is 0.0"
        )
    _online(table, draft)


def _online(table: Given, draft: Draft) -> None:
    functions, weights = table.words("reward_funcs"), table.take("reward_weights") or []
    for index, name in enumerate(functions):
        module, _, function = name.rpartition(".")
        place = f"./{module.replace('.', '/')}.py:{function}" if module else name
        weight = {"weight": weights[index]} if index < len(weights) else {}
        draft.rewards.append({"use": place, **weight})
        draft.tell(f"reward function {name}: write it with forge's signature (docs/rewards.md)")
    scale = table.take("scale_rewards")
    if scale is not None:
        draft.set("train.scale_rewards", scale if isinstance(scale, str) else "group" if scale else "none")
    if truth(table.take("log_completions")):
        draft.set("train.num_completions_to_print", 4)
    for name in ("loss_type", "vllm_server_host", "vllm_server_port", "generation_kwargs"):
        draft.set(f"train.{name}", table.take(name))
    common.same(table, draft)
    common.rest(table, draft, "forge has nothing of the kind")


def _adapter(given: Given, draft: Draft) -> None:
    kind = given.take("adapter")
    for name in ("load_in_4bit", "load_in_8bit"):
        if truth(given.take(name)):
            draft.set(f"model.{name}", value=True)
    rank, alpha, dropout = (given.number(name) for name in ("lora_r", "lora_alpha", "lora_dropout"))
    targets, linear = given.take("lora_target_modules"), truth(given.take("lora_target_linear"))
    more = {
        "lora_modules_to_save": "modules_to_save",
        "lora_target_parameters": "target_parameters",
        "lora_rank_pattern": "rank_pattern",
        "lora_alpha_pattern": "alpha_pattern",
        "peft_ensure_weight_tying": "ensure_weight_tying",
        "peft_use_dora": "use_dora",
        "peft_use_rslora": "use_rslora",
        "peft_layers_to_transform": "layers_to_transform",
        "peft_init_lora_weights": "init_lora_weights",
    }
    taken = {ours: given.take(theirs) for theirs, ours in more.items()}
    begin = taken["init_lora_weights"]
    if isinstance(begin, str) and begin in trained.ABSENT:
        draft.lack("peft_init_lora_weights", taken.pop("init_lora_weights"), "forge has no such beginning of LoRA")
    if kind is None:
        common.whole(draft)
        _unfrozen(given, draft)
        for name, value in (("lora_r", rank), ("lora_target_modules", targets)):
            if value is not None:
                draft.drop(name, value, "without adapter every weight is trained, there and here")
        if str(given.look("bf16", "auto")).lower() not in {"auto", "full"} and not truth(given.look("bf16")):
            return
        draft.set(
            "model.dtype", "bfloat16", "weights are loaded so there; forge's default for training them is float32"
        )
        return
    if kind not in {"lora", "qlora"}:
        draft.lack("adapter", kind, "forge has LoRA only")
    if kind == "qlora":
        draft.set("model.load_in_4bit", value=True)
    common.adapter(draft, rank=rank, alpha=alpha, dropout=dropout)
    draft.otherwise("adapter.lora_dropout", 0.0)
    if linear:
        draft.set("adapter.target_modules", "all-linear")
    elif isinstance(targets, str):
        draft.set("adapter.target_modules", "all-linear" if targets == "all-linear" else common.targets([targets]))
    elif targets:
        draft.set("adapter.target_modules", list(targets))
    for name, value in taken.items():
        if value not in (None, False, [], {}):
            draft.set(f"adapter.{name}", value)
    if begun := given.words("lora_model_dir"):
        common.start(draft, "lora_model_dir", begun)


def _unfrozen(given: Given, draft: Draft) -> None:
    """Train what is named alone: patterns, from the beginnings of parameters' names."""
    patterns = given.take("unfrozen_parameters") or []
    if ranges := [each for each in patterns if re.search(r"\[\d*:\d*\]$", each)]:
        draft.lack("unfrozen_parameters", ranges, "forge trains whole parameters, and no part of their rows")
    elif patterns:
        note = "unfrozen_parameters there"
        trained.layers(draft, {"target_modules": trained.matching(patterns)}, note)


def _steps(given: Given, draft: Draft) -> None:
    size, whole = given.look("micro_batch_size", 1), given.number("batch_size")
    if whole is not None and "gradient_accumulation_steps" not in given:
        draft.set(
            "train.gradient_accumulation_steps",
            max(1, int(whole) // int(draft.get("train.per_device_train_batch_size", size))),
        )
    common.warm_up(given, draft)
    least = given.number("cosine_min_lr_ratio")
    if least is not None:
        draft.set("train.lr_scheduler_type", "cosine_with_min_lr")
        draft.set("train.lr_scheduler_kwargs", {"min_lr_rate": least})
    arguments = given.take("optim_args")
    if arguments is not None:
        pairs = arguments.items() if isinstance(arguments, Mapping) else []
        draft.set("train.optim_args", ",".join(f"{k}={v}" for k, v in pairs) or arguments)


def _attention(given: Given, draft: Draft) -> None:
    common.attention(given.take("attn_implementation"), draft)
    for old in ("flash_attention", "sdp_attention", "eager_attention", "flex_attention", "xformers_attention"):
        if truth(given.take(old)):
            common.attention(old if old == "eager_attention" else "sdpa", draft)
    for name in ("bfloat16", "float16"):
        if truth(given.take(name)):
            draft.set("model.dtype", name)


def _evaluation(given: Given, draft: Draft) -> None:
    epochs = float(draft.get("train.num_train_epochs", 1))
    for theirs, ours in (("evals_per_epoch", "eval"), ("saves_per_epoch", "save")):
        count = given.number(theirs)
        if count:
            draft.set(f"train.{ours}_strategy", "steps")
            share = 1 / (float(count) * epochs)
            if share >= 1:
                draft.set(f"train.{ours}_strategy", "epoch")
            else:
                draft.set(f"train.{ours}_steps", round(share, 6), f"{theirs} = {count} there")
        elif count == 0:
            draft.set(f"train.{ours}_strategy", "no")
    common.saving(given, draft)
    if draft.get("train.eval_strategy") not in (None, "no"):
        draft.set("train.eval_on_start", value=True, note="rows are evaluated at the start too there")


def _trackers(given: Given, draft: Draft) -> None:
    project, name = given.take("wandb_project"), given.take("wandb_name") or given.take("wandb_run_id")
    named = ["wandb"] if project else []
    trackers = {
        "swanlab": "swanlab",
        "mlflow": "mlflow",
        "tensorboard": "tensorboard",
        "trackio": "trackio",
        "comet": "comet_ml",
    }
    named += [ours for theirs, ours in trackers.items() if truth(given.take(f"use_{theirs}"))]
    truth(given.take("use_wandb"))
    if named:
        draft.set("train.report_to", named[0] if len(named) == 1 else named)
        draft.set("train.project", project)
        draft.set("train.run_name", name)
    for key, value in given.starting("mlflow_", "comet_", "trackio_"):
        draft.drop(key, value, "the environment's")


def _export(given: Given, draft: Draft) -> None:
    place = given.take("hub_model_id")
    if place is not None:
        kind = "adapter" if draft.get("adapter.type") == "lora" else "merged"
        draft.exports.append({"format": kind, "push_to_hub": place})


def _plugins(given: Given, draft: Draft) -> None:
    for name in given.take("plugins") or []:
        if any(word in name for word in ("liger", "cut_cross_entropy", "kernels")):
            draft.drop("plugins", name, "speed only; forge has kernels of its own")
        else:
            draft.lack("plugins", name, "forge has nothing of the kind")


def _defaults(draft: Draft) -> None:
    """Write Axolotl's defaults that are not forge's."""
    draft.otherwise("model.max_seq_length", 512)
    draft.otherwise("train.per_device_train_batch_size", 1)
    draft.otherwise("train.gradient_accumulation_steps", 1)
    draft.otherwise("train.per_device_eval_batch_size", draft.get("train.per_device_train_batch_size"))
    if draft.get("train.max_steps") is None:
        draft.otherwise("train.num_train_epochs", 1)
    draft.otherwise("train.lr_scheduler_type", "cosine")
    if draft.get("train.lr_scheduler_type") != "constant":
        draft.otherwise("train.warmup_steps", 0.03, "Axolotl's default: 3 % of the steps, at most 100")
    draft.otherwise("train.optim", "adamw_torch_fused")
    draft.otherwise("train.save_strategy", "steps" if draft.get("train.save_steps") else "epoch")
    draft.otherwise("train.save_total_limit", 4)
    if draft.get("data.eval_size") or draft.get("data.eval_path"):
        draft.otherwise("train.eval_strategy", "epoch")
