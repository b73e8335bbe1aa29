"""Unsloth's command line and Studio: YAML with the tables data, training, lora and logging, or flat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forge_migrate import common
from forge_migrate.draft import Given, truth

if TYPE_CHECKING:
    from forge_migrate.draft import Draft

NAME = "Unsloth"

TABLES = ("data", "training", "lora", "logging")

FORMATS: Mapping[str, str] = {"alpaca": "instruction", "chatml": "messages", "sharegpt": "sharegpt", "raw": "text"}

DROPPED: Mapping[str, str] = {
    "gpu_ids": "the environment's: CUDA_VISIBLE_DEVICES",
    "tensorboard_dir": "the run's folder holds its events",
    "wandb_entity": "the environment's: WANDB_ENTITY",
}


def translate(given: Given, draft: Draft) -> None:
    """Write a job that trains as a configuration of Unsloth's does."""
    flat: dict[str, object] = {}
    for table in TABLES:
        inside = given.take(table)
        if isinstance(inside, Mapping):
            flat |= dict(inside)
    flat |= dict(given.rest())
    _all(Given(flat), draft)


def _all(given: Given, draft: Draft) -> None:
    draft.set("model.id", given.take("model", given.take("model_name")))
    common.stored_in_4_bit(draft)
    draft.set("train.method", "sft")
    draft.set("use.backend", "unsloth", "remove it where Unsloth cannot run: the training is the same")
    _rows(given, draft)
    _weights(given, draft)
    _steps(given, draft)
    common.same(given, draft)
    common.precision(given, draft)
    common.checkpointing(given, draft)
    _trackers(given, draft)
    common.secrets(given, draft)
    common.bookkeeping(given, draft)
    for name in ("is_dataset_audio", "is_embedding", "s3_config", "use_loftq", "embedding_learning_rate"):
        value = given.take(name)
        if value not in (None, False, {}, ""):
            draft.lack(name, value, "forge has nothing of the kind")
    for name, why in DROPPED.items():
        if name in given:
            draft.drop(name, given.take(name), why)
    common.rest(given, draft, "forge has nothing of the kind")


def _rows(given: Given, draft: Draft) -> None:
    name = given.take("dataset", given.take("hf_dataset"))
    files, held = given.take("local_dataset", given.take("local_datasets")), given.take("local_eval_datasets")
    found = {"path": files or name, "name": given.take("subset"), "split": given.take("train_split")}
    kind = given.take("format_type", "auto")
    if FORMATS.get(str(kind)):
        found["format"] = FORMATS[str(kind)]
    elif kind != "auto":
        draft.lack("format_type", kind, "rows are messages, instruction, sharegpt or text")
    columns = given.take("custom_format_mapping")
    if isinstance(columns, Mapping):
        found["columns"] = {ours: theirs for theirs, ours in columns.items()}
    draft.sources.append({key: value for key, value in found.items() if value is not None})
    if kind == "alpaca":
        draft.set("data.chat_template", "alpaca", "remove it if the model has a chat template of its own")
    draft.set("data.eval_path", held)
    draft.set("data.eval_split", given.take("eval_split"))
    if truth(given.take("dataset_streaming")):
        draft.set("data.streaming", value=True)
    first, last = given.number("dataset_slice_start"), given.number("dataset_slice_end")
    if first or last:
        draft.lack(
            "dataset_slice_start", f"{first or 0}:{last or ''}", 'a slice of a hub data set: split = "train[a:b]"'
        )
    answers = truth(given.take("train_on_completions"))
    draft.set("data.train_on", "assistant" if answers else "all", None if answers else "every token is learnt there")
    if truth(given.take("packing")):
        draft.set("data.packing", value=True)


def _weights(given: Given, draft: Draft) -> None:
    kind = given.take("training_type", "lora" if given.take("use_lora", default=True) else "full")
    length = given.number("max_seq_length", 2048)
    draft.set("model.max_seq_length", length)
    four, eight = given.take("load_in_4bit", default=True), given.take("load_in_8bit")
    rank, alpha, dropout = given.number("lora_r", 64), given.number("lora_alpha", 16), given.number("lora_dropout", 0.0)
    targets = given.words("target_modules")
    linear = truth(given.take("vision_all_linear"))
    flags = {name: truth(given.take(name)) for name in ("use_rslora", "use_dora")}
    parts = {name: truth(value) for name, value in given.starting("finetune_")}
    stored = str(draft.get("model.id", "")).endswith("-bnb-4bit")
    if str(kind).startswith("full"):
        common.whole(draft)
        return
    if truth(four) and not stored:
        draft.set("model.load_in_4bit", value=True)
    elif truth(eight):
        draft.set("model.load_in_8bit", value=True)
    common.adapter(draft, rank=rank, alpha=alpha, dropout=dropout)
    draft.set("adapter.target_modules", "all-linear" if linear and not targets else targets or "auto")
    for name, on in flags.items():
        if on:
            draft.set(f"adapter.{name}", value=True)
    off = {name: on for name, on in parts.items() if not on}
    for name in off:
        draft.set(f"adapter.{name}", value=False)


def _steps(given: Given, draft: Draft) -> None:
    draft.set("train.per_device_train_batch_size", given.number("batch_size", 2))
    draft.set("train.gradient_accumulation_steps", given.number("gradient_accumulation_steps", 4))
    steps, epochs = given.number("max_steps"), given.number("num_epochs", 3)
    if steps:
        draft.set("train.max_steps", steps)
    else:
        draft.set("train.num_train_epochs", epochs)
    draft.set("train.learning_rate", given.number("learning_rate", 2e-4))
    if "warmup_steps" not in given and "warmup_ratio" not in given:
        draft.set("train.warmup_steps", 5, "Unsloth's default")
    else:
        common.warm_up(given, draft)
    every, held = given.number("save_steps"), given.number("eval_steps")
    draft.set("train.save_steps", every or 500)
    if held:
        draft.set("train.eval_strategy", "steps")
        draft.set("train.eval_steps", held)
        if not any(draft.get(f"data.{name}") for name in ("eval_path", "eval_split")):
            draft.set("data.eval_size", 0.06, "held out where no split is named there")
    draft.set("train.weight_decay", given.number("weight_decay", 0.01))
    draft.set("train.seed", given.number("random_seed", 3407))
    draft.set("train.optim", given.take("optim", "adamw_8bit"))
    draft.set("train.lr_scheduler_type", given.take("lr_scheduler_type", "linear"))
    if draft.get("adapter.finetune_vision_layers") is not None or "VL" in str(draft.get("model.id")):
        draft.tell("vision models there have optim adamw_torch_fused, schedule cosine and max_grad_norm 0.3 by default")


def _trackers(given: Given, draft: Draft) -> None:
    named = [name for name in ("wandb", "tensorboard") if truth(given.take(f"enable_{name}"))]
    project = given.take("wandb_project")
    if named:
        draft.set("train.report_to", named[0] if len(named) == 1 else named)
    if "wandb" in named:
        draft.set("train.project", project)
