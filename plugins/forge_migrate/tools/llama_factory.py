"""LLaMA-Factory's YAML (``src/llamafactory/hparams``) and its list of data sets, ``dataset_info.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate import common, trained
from forge_migrate.draft import Given, truth
from forge_migrate.tools.llama_factory_rows import Sets, rows

if TYPE_CHECKING:
    from pathlib import Path

    from forge_migrate.draft import Draft
    from forge_migrate.reading import Read

NAME = "LLaMA-Factory"

LOSSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sigmoid": ("dpo", {"loss_type": ["sigmoid"]}),
    "hinge": ("dpo", {"loss_type": ["hinge"]}),
    "ipo": ("dpo", {"loss_type": ["ipo"]}),
    "orpo": ("orpo", {}),
    "simpo": ("cpo", {"loss_type": "simpo", "cpo_alpha": 0.0}),
}
"""``pref_loss``: forge's method, and what it needs to be the same."""

DROPPED: Mapping[str, str] = {
    "cache_dir": "HF_HOME says where models are kept",
    "use_fast_tokenizer": "forge takes the fast one where there is one",
    "low_cpu_mem_usage": "memory only",
    "use_unsloth_gc": "memory only",
    "use_reentrant_gc": "the training is the same",
    "disable_gradient_checkpointing": "forge decides by the memory; the training is the same",
    "include_effective_tokens_per_second": "tokens a second are told always",
    "compute_accuracy": "the log has it",
    "do_predict": "`[eval]` asks for answers after training",
    "print_param_status": "the screen's",
    "batching": "rows are made by forge",
    "enable_liger_kernel": "speed only; forge has kernels of its own",
    "upcast_layernorm": "norms are computed in 32 bit always",
    "upcast_lmhead_output": "the loss is computed in 32 bit always",
    "use_swanlab": 'write report_to = "swanlab"',
}


def begin(given: Given, draft: Draft, found: Read, folder: Path) -> None:  # noqa: ARG001 - as every tool's
    """Find the list of data sets: in ``dataset_dir``, beside the file, or in the folders above it."""
    place = str(given.take("dataset_dir", "data"))
    sets: dict[str, Any] = {}
    home = ""
    for start in (folder, *folder.resolve().parents):
        path = start / place / "dataset_info.json"
        if path.is_file():
            try:
                sets, home = json.loads(path.read_text(encoding="utf-8")), str(start / place)
            except ValueError as error:
                draft.lack("dataset_dir", place, f"{path} is no JSON ({error})")
            break
    rows(given, draft, Sets(sets, home, place))


def translate(given: Given, draft: Draft) -> None:
    """Write a job that trains as a LLaMA-Factory configuration does."""
    draft.set("model.id", given.take("model_name_or_path"))
    common.stored_in_4_bit(draft)
    revision = given.take("model_revision")
    draft.set("model.revision", None if revision == "main" else revision)
    if truth(given.take("trust_remote_code")):
        draft.set("model.trust_remote_code", value=True)
    stage = given.take("stage", "sft")
    _method(stage, given, draft)
    _weights(given, draft)
    plain, special = ((given.take(name) or "") for name in ("add_tokens", "add_special_tokens"))
    both = [each.split(",") if isinstance(each, str) else list(each) for each in (plain, special)]
    trained.new_tokens(draft, *([t.strip() for t in each if t.strip()] for each in both), whole=True)
    if (resized := given.take("resize_vocab")) is not None:
        draft.drop("resize_vocab", resized, "the embeddings are resized wherever tokens are added")
    length = given.number("cutoff_len", 2048)
    draft.set("model.max_seq_length", length)
    _optimizer(given, draft)
    common.warm_up(given, draft)
    common.same(given, draft)
    if truth(given.take("use_dft_loss")):
        draft.set("train.loss_type", "dft")
    steps = given.number("early_stopping_steps")
    draft.set("train.early_stopping_patience", steps)
    router = given.number("moe_aux_loss_coef")
    draft.set("train.router_aux_loss_coef", router)
    if truth(given.take("disable_shuffling")):
        draft.set("train.train_sampling_strategy", "sequential")
    common.precision(given, draft)
    common.lora_plus(given, draft)
    common.checkpointing(given, draft)
    common.attention(given.take("flash_attn"), draft)
    common.saving(given, draft)
    common.trackers(given, draft)
    if truth(given.take("use_unsloth")):
        draft.set("use.backend", "unsloth")
    if truth(given.take("predict_with_generate")):
        draft.tell('predict_with_generate: write [eval] with metrics = ["rouge"] to have answers scored after training')
    _pixels(given, draft)
    _export(given, draft)
    common.secrets(given, draft)
    common.bookkeeping(given, draft)
    common.processes(given, draft)
    for name, value in given.starting("swanlab_"):
        draft.drop(name, value, "the environment's")
    for name, why in DROPPED.items():
        if name in given:
            draft.drop(name, given.take(name), why)
    common.rest(given, draft, "forge has nothing of the kind")
    _defaults(draft)


def _method(stage: str, given: Given, draft: Draft) -> None:
    loss, beta, mixed = given.take("pref_loss", "sigmoid"), given.number("pref_beta", 0.1), given.number("pref_ftx")
    smoothing = given.number("dpo_label_smoothing")
    weights = {
        "desirable_weight": given.number("kto_chosen_weight"),
        "undesirable_weight": given.number("kto_rejected_weight"),
    }
    if stage in {"sft", "pt"}:
        draft.set("train.method", "sft")
    elif stage == "rm":
        draft.set("train.method", "reward")
    elif stage == "kto":
        draft.set("train.method", "kto")
        draft.set("train.beta", beta)
        for name, value in weights.items():
            draft.set(f"train.{name}", value)
    elif stage == "dpo" and loss in LOSSES:
        method, more = LOSSES[loss]
        draft.set("train.method", method)
        draft.set("train.beta", beta)
        for name, value in more.items():
            draft.set(f"train.{name}", value)
        draft.set("train.label_smoothing", smoothing or None)
        if mixed:
            draft.set("train.loss_type", ["sigmoid", "sft"], "pref_ftx there")
            draft.set("train.loss_weights", [1.0, mixed])
    else:
        draft.set("train.method", "sft")
        draft.lack("stage", stage if stage != "dpo" else loss, "forge has no such method")
    for name in ("ref_model", "reward_model"):
        value = given.take(name)
        if value is not None:
            draft.lack(name, value, "the reference is the model before training; rewards are functions")


def _weights(given: Given, draft: Draft) -> None:
    kind = given.take("finetuning_type", "lora")
    rank, alpha, dropout = (given.number(name) for name in ("lora_rank", "lora_alpha", "lora_dropout"))
    targets, more = given.words("lora_target"), given.words("additional_target")
    bits, how = given.number("quantization_bit"), given.take("quantization_method", "bnb")
    if bits in {4, 8} and how in {"bnb", "bitsandbytes"}:
        draft.set(f"model.load_in_{bits}bit", value=True)
    elif bits is not None:
        draft.lack("quantization_bit", f"{bits} by {how}", "forge loads in 4 or 8 bit by bitsandbytes")
    if given.take("quantization_type", "nf4") != "nf4" or given.take("double_quantization", default=True) is False:
        draft.lack("quantization_type", None, "forge's 4 bit is NF4 with doubly quantised scales")
    if truth(given.take("pure_bf16")):
        draft.set("model.dtype", "bfloat16")
    if kind == "full":
        common.whole(draft)
    elif kind == "lora":
        rank = 8 if rank is None else rank
        common.adapter(draft, rank=rank, alpha=2 * rank if alpha is None else alpha, dropout=dropout)
        draft.otherwise("adapter.lora_dropout", 0.0)
        if not targets or targets == ["all"]:
            draft.set("adapter.target_modules", "all-linear")
        else:
            draft.set("adapter.target_modules", targets)
        draft.set("adapter.modules_to_save", more or None)
        for name in ("use_rslora", "use_dora"):
            if truth(given.take(name)):
                draft.set(f"adapter.{name}", value=True)
    elif kind == "freeze":
        _freeze(given, draft)
    else:
        draft.lack("finetuning_type", kind, "forge has LoRA and the training of every weight")
    begun, new = given.words("adapter_name_or_path"), truth(given.take("create_new_adapter"))
    if begun and (new or kind != "lora"):
        draft.lack("adapter_name_or_path", begun, "merge it first, and write the merged folder into [model] id")
    elif begun:
        common.start(draft, "adapter_name_or_path", begun, reference=False)


def _freeze(given: Given, draft: Draft) -> None:
    """Train the last layers, or the first ones where their number is below 0."""
    count = int(given.number("freeze_trainable_layers", 2))
    names, beside = given.words("freeze_trainable_modules"), given.words("freeze_extra_modules")
    if truth(given.take("use_llama_pro")):
        draft.lack("use_llama_pro", value=True, why="forge adds no layers to a model")
    numbers = list(range(-count, 0)) if count > 0 else list(range(-count))
    chosen = {"layers_to_transform": numbers, "modules_to_save": beside}
    chosen["target_modules"] = [] if names in ([], ["all"]) else names
    trained.layers(draft, chosen, 'finetuning_type = "freeze" there')


def _optimizer(given: Given, draft: Draft) -> None:
    for name, extra in (("galore", (16, 200, 2.0)), ("apollo", (16, 200, 32.0))):
        on = truth(given.take(f"use_{name}"))
        target, rank = given.words(f"{name}_target"), given.number(f"{name}_rank", extra[0])
        gap, scale = given.number(f"{name}_update_interval", extra[1]), given.number(f"{name}_scale", extra[2])
        layers = truth(given.take(f"{name}_layerwise"))
        if not on:
            continue
        draft.set("train.optim", f"{name}_adamw{'_layerwise' if layers else ''}")
        draft.set("train.optim_target_modules", "all-linear" if target in ([], ["all"]) else target)
        draft.set("train.optim_args", f"rank={rank},update_proj_gap={gap},scale={scale}")
    if truth(given.take("use_muon")):
        trained.muon(draft, "use_muon")
    for name in ("use_badam", "use_adam_mini"):
        if truth(given.take(name)):
            draft.lack(name, value=True, why="forge has no such optimizer")


def _pixels(given: Given, draft: Draft) -> None:
    for theirs, ours in (("image_max_pixels", "max_pixels"), ("image_min_pixels", "min_pixels")):
        draft.set(f"data.{ours}", given.number(theirs))
    for name, ours in (("freeze_vision_tower", "vision"), ("freeze_language_model", "language")):
        if name in given:
            draft.set(f"adapter.finetune_{ours}_layers", not truth(given.take(name)))
    for name, value in given.starting("video_", "audio_"):
        draft.drop(name, value, "forge takes no videos and no audio, and refuses rows with them")
    if "freeze_multi_modal_projector" in given:
        draft.drop(
            "freeze_multi_modal_projector", given.take("freeze_multi_modal_projector"), "it is left alone here too"
        )


def _export(given: Given, draft: Draft) -> None:
    place, merged = given.take("export_hub_model_id"), given.take("export_dir")
    if place or merged:
        draft.exports.append({"format": "merged", **({"push_to_hub": place} if place else {})})
    given.take("export_size")
    given.take("export_legacy_format")
    hub = given.take("hub_model_id")
    if truth(given.take("push_to_hub")) and hub:
        draft.exports.append(
            {"format": "adapter" if draft.get("adapter.type") == "lora" else "merged", "push_to_hub": hub}
        )


def _defaults(draft: Draft) -> None:
    """Write LLaMA-Factory's defaults that are not forge's: transformers' own."""
    draft.otherwise("train.learning_rate", 5e-5, "transformers' default")
    draft.otherwise("train.per_device_train_batch_size", 8)
    draft.otherwise("train.gradient_accumulation_steps", 1)
    if draft.get("train.max_steps") is None:
        draft.otherwise("train.num_train_epochs", 3.0)
    draft.otherwise("train.lr_scheduler_type", "linear")
    draft.otherwise("train.save_steps", 500)
