"""ModelForge's JSON (``schemas/training_schemas.py``, ``strategies``), with the comments that its guides have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate import common
from forge_migrate.draft import truth

if TYPE_CHECKING:
    from forge_migrate.draft import Draft, Given

NAME = "ModelForge"

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "sft": {"per_device_train_batch_size": 1, "learning_rate": 2e-4, "weight_decay": 0.001, "warmup_ratio": 0.03},
    "qlora": {"per_device_train_batch_size": 1, "learning_rate": 2e-4, "weight_decay": 0.001, "warmup_ratio": 0.03},
    "dpo": {"per_device_train_batch_size": 1, "learning_rate": 5e-4, "weight_decay": 0.05, "warmup_ratio": 0.1},
}
"""By ``strategy``, where the request is silent."""


def translate(given: Given, draft: Draft) -> None:
    """Write a job that trains as a request to ModelForge does."""
    strategy = given.take("strategy", "sft")
    if strategy not in DEFAULTS:
        draft.lack("strategy", strategy, "forge learns from rewards by grpo, with [[train.reward]]")
        strategy = "sft"
    draft.set("model.id", given.take("model_name"))
    draft.set("train.method", "dpo" if strategy == "dpo" else "sft")
    _task(given, draft)
    if given.take("provider", "huggingface") == "unsloth":
        draft.set("use.backend", "unsloth")
    length = given.number("max_seq_length")
    default = 512 if strategy == "dpo" else 2048
    draft.set(
        "model.max_seq_length", default if length in (None, -1) else length, "2048 there" if length == -1 else None
    )
    _weights(given, draft, strategy)
    path = given.take("dataset")
    if path is None:
        draft.lack("dataset", None, "is missing there: write the file or hub id of the rows into [data] path")
    else:
        draft.set("data.path", path)
    if draft.get("train.method") == "sft":
        draft.tell(
            "ModelForge writes 'USER: …' and 'ASSISTANT: …' and learns every token; this job uses the model's chat "
            "template and learns the answers. For the same as there: a row_template of that text, as one string"
        )
    share = given.number("eval_split", 0.2)
    if share:
        draft.set("data.eval_size", share)
        steps = given.number("eval_steps", 100)
        for key, value in {
            "eval_strategy": "steps",
            "eval_steps": steps,
            "save_steps": steps,
            "load_best_model_at_end": True,
        }.items():
            draft.set(f"train.{key}", value)
    given.take("save_steps")
    for name, value in DEFAULTS[strategy].items():
        taken = given.number(name)
        draft.set(f"train.{'warmup_steps' if name == 'warmup_ratio' else name}", value if taken is None else taken)
    if truth(given.take("group_by_length", default=True)):
        draft.set("train.train_sampling_strategy", "group_by_length")
    packing = given.take("packing")
    if packing:
        draft.drop("packing", packing, "ModelForge reads it nowhere")
    common.same(given, draft)
    common.precision(given, draft)
    common.checkpointing(given, draft)
    common.secrets(given, draft)
    common.bookkeeping(given, draft)
    if "compute_specs" in given:
        draft.drop("compute_specs", given.take("compute_specs"), "forge looks at the machine itself")
    common.rest(given, draft, "forge has nothing of the kind")
    _defaults(draft)


def _task(given: Given, draft: Draft) -> None:
    task = given.take("task", "text-generation")
    if task == "summarization":
        draft.set("data.columns", {"input": "document", "output": "summary"})
        draft.tell("summarization: a model with an encoder there; name one, or a chat model, which learns it too")
    elif task == "extractive-question-answering":
        draft.lack("task", task, "marks a piece of the text there; a model of forge's writes the answer")
    elif task != "text-generation":
        draft.lack("task", task, "forge has no such task")


def _weights(given: Given, draft: Draft, strategy: str) -> None:
    four, eight = given.take("use_4bit", default=True), given.take("use_8bit")
    if strategy == "qlora" or truth(four):
        draft.set("model.load_in_4bit", value=True)
        if truth(eight):
            draft.drop("use_8bit", eight, "4 bit wins there")
    elif truth(eight):
        draft.set("model.load_in_8bit", value=True)
    if given.take("bnb_4bit_quant_type", "nf4") != "nf4":
        draft.lack("bnb_4bit_quant_type", "fp4", "forge's 4 bit is NF4")
    for name in ("bnb_4bit_compute_dtype", "use_nested_quant"):
        if name in given:
            draft.drop(
                name, given.take(name), "forge computes in the type of the training, and quantises the scales too"
            )
    usual = (64, 16) if strategy == "qlora" else (16, 32)
    rank, alpha = given.number("lora_r", usual[0]), given.number("lora_alpha", usual[1])
    common.adapter(draft, rank=rank, alpha=alpha, dropout=given.number("lora_dropout", 0.1))
    targets = given.words("target_modules")
    draft.set("adapter.target_modules", "all-linear" if targets in ([], ["all-linear"]) else targets)
    for name in ("use_rslora", "use_dora"):
        if truth(given.take(name)):
            draft.set(f"adapter.{name}", value=True)


def _defaults(draft: Draft) -> None:
    """Write ModelForge's defaults that are not forge's."""
    if draft.get("train.max_steps") in (None, -1):
        draft.tables["train"].pop("max_steps", None)
        draft.otherwise("train.num_train_epochs", 1)
    draft.otherwise("train.per_device_eval_batch_size", 1)
    draft.otherwise("train.gradient_accumulation_steps", 4)
    draft.otherwise("train.max_grad_norm", 0.3)
    draft.otherwise("train.lr_scheduler_type", "cosine")
    if draft.get("train.method") == "sft":
        draft.otherwise("train.optim", "paged_adamw_32bit")
    draft.otherwise("train.logging_steps", 25)
