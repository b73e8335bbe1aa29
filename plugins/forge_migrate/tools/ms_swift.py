"""ms-swift's arguments (``swift/arguments``, ``swift/trainers/arguments.py``), from a command or as YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate import common, trained
from forge_migrate.draft import truth
from forge_migrate.tools.ms_swift_rows import rewards, rows

if TYPE_CHECKING:
    from pathlib import Path

    from forge_migrate.draft import Draft, Given
    from forge_migrate.reading import Read

NAME = "ms-swift"

METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dpo": ("dpo", {}),
    "orpo": ("orpo", {}),
    "kto": ("kto", {}),
    "cpo": ("cpo", {}),
    "simpo": ("cpo", {"loss_type": "simpo"}),
    "rm": ("reward", {}),
    "grpo": ("grpo", {}),
    "gkd": ("distill", {}),
}
"""``rlhf_type``: forge's method, and what it needs to be the same."""

BETAS: Mapping[str, float] = {"grpo": 0.04, "simpo": 2.0, "gkd": 0.5, "rm": 0.0}

TEXTS: Mapping[str, Mapping[str, str]] = {
    "embedding": {
        "infonce": "MultipleNegativesRankingLoss",
        "cosine_similarity": "CosineSimilarityLoss",
        "contrastive": "ContrastiveLoss",
        "online_contrastive": "OnlineContrastiveLoss",
    },
    "reranker": {"pointwise_reranker": "BinaryCrossEntropyLoss"},
}
"""``task_type`` of models that give no words: their ``loss_type``, and sentence-transformers' name of it."""

TEMPERATURE = 0.1
"""ms-swift's, by which similarities are divided under ``infonce`` where INFONCE_TEMPERATURE does not say another."""

DROPPED: Mapping[str, str] = {
    "add_version": "runs have folders of their own",
    "attn_impl_kwargs": "speed only",
    "agent_template": "the model's own chat template writes tools and calls: see `forge data`",
    "create_checkpoint_symlink": "runs have folders of their own",
    "deepspeed_zero3_save_16bit_model": "of several processes",
    "freeze_aligner": "it is left alone here too",
    "ignore_args_error": "every key is checked always",
    "lazy_tokenize": "rows are made beforehand",
    "model_type": "forge goes by the model's config",
    "offload_model": "memory only",
    "offload_optimizer": "memory only",
    "padding_free": "forge decides; the training is the same",
    "use_hf": "rows and models come from the hub of Hugging Face",
    "use_liger_kernel": "speed only; forge has kernels of its own",
}


def begin(given: Given, draft: Draft, found: Read, folder: Path) -> None:  # noqa: ARG001 - as every tool's
    """Take the command: ``sft``, ``pt`` or ``rlhf``."""
    word = found.method or ("rlhf" if "rlhf_type" in given else "sft")
    kind = str(given.take("rlhf_type", "dpo")) if word == "rlhf" else ""
    task = str(given.take("task_type", "causal_lm"))
    if word == "sft" and task == "seq_cls":
        _classifier(given, draft)
    elif word == "sft" and task in TEXTS:
        draft.set("train.method", task)
        draft.tell("rows have messages there; forge takes texts by columns: anchor, positive, negative, label")
    elif word != "rlhf":
        draft.set("train.method", "sft")
        if task != "causal_lm":
            draft.lack("task_type", task, "forge trains language models, classifiers (seq_cls) and reward models")
        if word == "pt":
            draft.set("data.train_on", "all", "pt learns every token")
    elif kind in METHODS:
        method, more = METHODS[kind]
        draft.set("train.method", method)
        for name, value in more.items():
            draft.set(f"train.{name}", value)
        beta = given.number("beta")
        default = BETAS.get(kind, 0.1)
        if kind != "rm":
            draft.set(
                "train.beta", default if beta is None else beta, None if beta is not None else "ms-swift's default"
            )
        if kind == "simpo":
            alpha = given.number("cpo_alpha")
            draft.set("train.cpo_alpha", 1.0 if alpha is None else alpha, "1.0 if unset there; SimPO's own is 0.0")
    else:
        draft.set("train.method", "sft")
        draft.lack("rlhf_type", kind, "forge has no such method")
    if not truth(given.look("use_hf")):
        draft.tell("models and data sets come from ModelScope there: ids may differ on the hub of Hugging Face")


def _classifier(given: Given, draft: Draft) -> None:
    """Take what a classifier is to tell: rows have the number of a class, the numbers of several, or a number."""
    draft.set("train.method", "classification")
    count, kind = given.number("num_labels"), given.take("problem_type")
    if kind is None:
        kind = "regression" if count == 1 else "single_label_classification"
    draft.set("train.problem_type", kind)
    if kind != "regression" and count is not None:
        draft.set("train.labels", [str(number) for number in range(int(count))], "the numbers that rows have there")
    if given.take("use_chat_template") in {False, "false", "False"}:
        draft.tell(
            "use_chat_template = false: here messages are put into the model's template, if it has one; write text"
        )


def translate(given: Given, draft: Draft) -> None:
    """Write a job that trains as a command of ms-swift does."""
    draft.set("model.id", given.take("model"))
    common.stored_in_4_bit(draft)
    draft.set("model.revision", given.take("model_revision"))
    _weights(given, draft)
    _tokens(given, draft)
    rows(given, draft)
    rewards(given, draft)
    common.warm_up(given, draft)
    epochs = given.number("max_epochs")
    draft.set("train.num_train_epochs", epochs)
    loss, mixed = given.take("loss_type"), given.number("rpo_alpha")
    if (method := draft.get("train.method")) in TEXTS:
        _loss_of_texts(method, loss, draft)
    elif mixed:
        draft.set("train.loss_type", ["sigmoid", "sft"], "rpo_alpha there")
        draft.set("train.loss_weights", [1.0, mixed])
    elif loss is not None:
        draft.set("train.loss_type", loss)
    if truth(given.take("enable_dft_loss")):
        draft.set("train.loss_type", "dft")
    for name, why in DROPPED.items():
        if name in given:
            draft.drop(name, given.take(name), why)
    common.same(given, draft)
    stop = given.number("early_stop_interval")
    draft.set("train.early_stopping_patience", stop)
    common.precision(given, draft)
    common.lora_plus(given, draft, "lorap_lr_ratio")
    common.checkpointing(given, draft)
    common.attention(given.take("attn_impl"), draft)
    common.saving(given, draft)
    common.trackers(given, draft)
    _export(given, draft)
    common.secrets(given, draft)
    common.bookkeeping(given, draft)
    common.processes(given, draft)
    common.rest(given, draft, "forge has nothing of the kind")
    _defaults(draft)


def _loss_of_texts(method: str, loss: Any, draft: Draft) -> None:
    """Write the loss of an embedding model or a reranker."""
    name = TEXTS[method].get(str(loss))
    if name is None:
        why = f"forge has {', '.join(TEXTS[method])}" if loss else "which one is taken there depends on its version"
        draft.lack("loss_type", loss, why)
        return
    draft.set("train.loss", name)
    if loss == "infonce":
        draft.set("train.scale", 1 / TEMPERATURE, "1 / INFONCE_TEMPERATURE, whose default is 0.1")
        draft.set("train.batch_sampler", "batch_sampler", "ms-swift lets a text stand in a batch twice")


def _weights(given: Given, draft: Draft) -> None:
    kind = given.take("tuner_type", given.take("train_type", "lora"))
    dtype = given.take("torch_dtype")
    bits, how = given.number("quant_bits"), given.take("quant_method", "bnb")
    if bits in {4, 8} and how == "bnb":
        draft.set(f"model.load_in_{bits}bit", value=True)
    elif bits is not None:
        draft.lack("quant_bits", f"{bits} by {how}", "forge loads in 4 or 8 bit by bitsandbytes")
    for name, _ in list(given.starting("bnb_4bit_")):
        draft.drop(name, None, "forge's 4 bit is NF4, computed in the type of the training")
    if given.take("tuner_backend", "peft") == "unsloth":
        draft.set("use.backend", "unsloth")
    length = given.number("max_length")
    draft.set(
        "model.max_seq_length", -1 if length is None else length, None if length else "the model's own limit there"
    )
    rank, alpha = given.number("lora_rank", 8), given.number("lora_alpha", 32)
    dropout, targets = given.number("lora_dropout", 0.05), given.words("target_modules")
    saved, bias, start = given.words("modules_to_save"), given.take("lora_bias"), given.take("init_weights")
    flags = {name: truth(given.take(name)) for name in ("use_rslora", "use_dora")}
    for theirs, ours in (("freeze_vit", "vision"), ("freeze_llm", "language")):
        if theirs in given:
            draft.set(f"adapter.finetune_{ours}_layers", not truth(given.take(theirs)))
    if kind == "full":
        common.whole(draft)
        _chosen(given, draft)
        draft.set("model.dtype", dtype or "bfloat16", "the weights are trained in the checkpoint's type there")
        return
    beside = kind == "lora_llm"
    if kind != "lora" and not beside:
        draft.lack("tuner_type", kind, "forge has LoRA and the training of every weight")
    if dtype is not None:
        draft.set("model.dtype", dtype)
    common.adapter(draft, rank=rank, alpha=alpha, dropout=dropout)
    whole = not targets or targets in (["all-linear"], ["all"])
    draft.set("adapter.target_modules", given.take("target_regex") or ("all-linear" if whole else targets))
    draft.set("adapter.target_parameters", given.words("target_parameters") or None)
    draft.set("adapter.modules_to_save", saved or None)
    if beside:
        _whole_tower(given, draft, saved)
    draft.set("adapter.bias", None if bias in (None, "none") else bias)
    if str(start) in trained.ABSENT:
        draft.lack("init_weights", start, "forge has no such beginning of LoRA")
    elif start not in (None, True, "true"):
        draft.set("adapter.init_lora_weights", start)
    for name, on in flags.items():
        if on:
            draft.set(f"adapter.{name}", value=True)
    if begun := given.words("adapters"):
        common.start(draft, "adapters", begun, reference=False)


def _chosen(given: Given, draft: Draft) -> None:
    """Train what is named, and not what is frozen: the beginnings of parameters' names."""
    share, frozen = given.number("freeze_parameters_ratio", 0), given.words("freeze_parameters")
    named = given.words("trainable_parameters")
    if share not in (0, 1):
        why = 'which layers these are, the model tells: write [adapter] type = "layers" and layers_to_transform'
        draft.lack("freeze_parameters_ratio", share, why)
    elif (share and named) or frozen:
        pattern = trained.matching([re.escape(each) for each in named], frozen if not share else ())
        trained.layers(draft, {"target_modules": pattern}, "freeze_parameters and trainable_parameters there")
    elif share:
        draft.lack("freeze_parameters_ratio", share, "nothing would be trained")


def _tokens(given: Given, draft: Draft) -> None:
    new = given.words("new_special_tokens")
    if any(each.endswith(".txt") for each in new):
        draft.lack("new_special_tokens", new, "write the tokens of the file into [model] add_special_tokens")
    else:
        trained.new_tokens(draft, (), new, whole=False)
    if (optimizer := given.take("optimizer")) == "muon":
        trained.muon(draft, "optimizer")
    elif optimizer is not None:
        draft.lack("optimizer", optimizer, "forge has no such optimizer, or calls it otherwise: see [train] optim")


TOWER = "visual"
"""What Qwen's models call their vision tower, the aligner within it."""


def _whole_tower(given: Given, draft: Draft, saved: list[str]) -> None:
    """Take over LoRA on the language model beside a vision tower whose every weight is trained."""
    if "vl" not in str(draft.get("model.id")).lower() or "qwen" not in str(draft.get("model.id")).lower():
        draft.lack("tuner_type", "lora_llm", "name the vision tower of this model in [adapter] modules_to_save")
        return
    draft.set("adapter.finetune_vision_layers", value=False, note="no LoRA there: every weight of it is trained")
    draft.set("adapter.modules_to_save", [*saved, TOWER])
    rates = {rf"{TOWER}\..*merger": given.number("aligner_lr"), rf"{TOWER}\.": given.number("vit_lr")}
    if given_rates := {pattern: rate for pattern, rate in rates.items() if rate is not None}:
        draft.set("train.learning_rates", given_rates)


def _export(given: Given, draft: Draft) -> None:
    place = given.take("hub_model_id")
    if truth(given.take("push_to_hub")) and place:
        kind = "adapter" if draft.get("adapter.type") == "lora" else "merged"
        draft.exports.append({"format": kind, "push_to_hub": place})


def _defaults(draft: Draft) -> None:
    """Write ms-swift's defaults that are not forge's."""
    draft.otherwise("train.per_device_train_batch_size", 1)
    draft.otherwise("train.per_device_eval_batch_size", 1)
    size = draft.get("train.per_device_train_batch_size")
    draft.otherwise("train.gradient_accumulation_steps", math.ceil(16 / size), "ms-swift's default: 16 rows a step")
    full = draft.get("adapter.type") != "lora"
    draft.otherwise("train.learning_rate", 1e-5 if full else 1e-4)
    if draft.get("train.max_steps") is None:
        draft.otherwise("train.num_train_epochs", 3.0)
    draft.otherwise("train.lr_scheduler_type", "cosine")
    draft.otherwise("train.weight_decay", 0.1)
    draft.otherwise("train.adam_beta2", 0.95)
    if draft.get("train.report_to") is None:
        draft.tell("report_to is tensorboard by default there, nothing here")
