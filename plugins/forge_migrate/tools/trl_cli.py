"""TRL's command line: arguments, or its YAML (``trl/scripts/utils.py``, ``trl/trainer/*_config.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.api import UsageError
from forge_migrate import common
from forge_migrate.draft import Given, truth

if TYPE_CHECKING:
    from pathlib import Path

    from forge_migrate.draft import Draft
    from forge_migrate.reading import Read

NAME = "TRL"

RATES: Mapping[str, float] = {"sft": 2e-5, "reward": 1e-4}
"""Learning rates by default; all other methods have 1e-6."""

DROPPED: Mapping[str, str] = {
    "bnb_4bit_quant_storage": "forge decides",
    "config": "the file itself",
    "dataset_kwargs": "rows are made by forge",
    "eval_packing": "held-out rows are packed as the others are; their loss is the same",
    "ignore_bias_buffers": "of several processes",
    "lora_task_type": "the method says it",
    "padding_free": "forge decides; the training is the same",
    "use_cache": "forge sets it itself",
    "vllm_server_host": "the environment's",
}

REWARDS: Mapping[str, Mapping[str, Any]] = {
    "accuracy_reward": {"use": "math-equal", "args": {"column": "solution"}},
    "reasoning_accuracy_reward": {"use": "math-equal", "args": {"column": "solution"}},
    "think_format_reward": {
        "use": "regex",
        "args": {"pattern": r"<think>(?:(?!<think>)[\s\S])*?</think>[\s\S]*", "mode": "full"},
    },
}
"""TRL's own reward functions."""


def begin(given: Given, draft: Draft, found: Read, folder: Path) -> None:  # noqa: ARG001 - as every tool's
    """Take the command, which is the method."""
    if found.method is None:
        why = "TRL's YAML does not say which command reads it"
        raise UsageError("the method is not known", why, "name the command: --method sft, dpo, kto, reward, grpo, …")
    draft.set("train.method", found.method)


def translate(given: Given, draft: Draft) -> None:
    """Write a job that trains as a command of TRL does."""
    method = draft.get("train.method")
    draft.set("model.id", given.take("model_name_or_path"))
    common.stored_in_4_bit(draft)
    revision = given.take("model_revision")
    draft.set("model.revision", None if revision == "main" else revision)
    if truth(given.take("trust_remote_code")):
        draft.set("model.trust_remote_code", value=True)
    _weights(given, draft)
    length = given.take("max_length", 1024)
    draft.set("model.max_seq_length", -1 if length in (None, "null", "None") else length)
    _rows(given, draft, method)
    if given.take("truncation_mode", "keep_start") != "keep_start":
        draft.lack("truncation_mode", "keep_end", "forge cuts rows at their end")
    _losses(given, draft)
    common.warm_up(given, draft)
    common.same(given, draft)
    _rewards(given, draft)
    common.precision(given, draft)
    common.checkpointing(given, draft)
    common.attention(given.take("attn_implementation"), draft)
    common.saving(given, draft)
    common.trackers(given, draft)
    _export(given, draft)
    common.secrets(given, draft)
    common.bookkeeping(given, draft)
    common.processes(given, draft, {name: given.take(name) for name in ("accelerate_config", "parallelism_config")})
    _number_of_processes(given, draft)
    environment = given.take("env")
    if environment:
        draft.drop("env", None, f"set in the environment again: {', '.join(map(str, environment))}")
    for name, why in DROPPED.items():
        if name in given:
            draft.drop(name, given.take(name), why)
    # Whatever else TRL knows has its own name here; what forge does not take is told when the job is planned.
    for name, value in given.rest():
        draft.set(f"train.{name}", value)
    _defaults(draft, method)


def _weights(given: Given, draft: Draft) -> None:
    dtype = given.take("dtype", given.take("torch_dtype", "float32"))
    if dtype not in {"auto", "float32"}:
        draft.set("model.dtype", dtype)
    elif dtype == "auto":
        draft.tell("dtype = auto: the checkpoint's own type there, forge's choice here (docs/job.md)")
    peft = truth(given.take("use_peft"))
    rank, alpha = given.number("lora_r", 16), given.number("lora_alpha", 32)
    dropout, targets = given.number("lora_dropout", 0.05), given.words("lora_target_modules")
    saved = given.words("lora_modules_to_save")
    flags = {name: truth(given.take(name)) for name in ("use_rslora", "use_dora")}
    for name in ("load_in_4bit", "load_in_8bit"):
        if truth(given.take(name)):
            draft.set(f"model.{name}", value=True)
    kind, nested = given.take("bnb_4bit_quant_type", "nf4"), given.take("use_bnb_nested_quant")
    if draft.get("model.load_in_4bit") and not truth(nested):
        draft.tell("scales are quantised too here (use_bnb_nested_quant); weights differ from TRL's in the last bits")
    if kind != "nf4":
        draft.lack("bnb_4bit_quant_type", kind, "forge's 4 bit is NF4")
    parameters = given.words("lora_target_parameters")
    if not peft:
        common.whole(draft)
        return
    common.adapter(draft, rank=rank, alpha=alpha, dropout=dropout)
    draft.set("adapter.target_parameters", parameters or None)
    if targets:
        named = targets[0] if targets == ["all-linear"] else common.targets(targets)
        draft.set("adapter.target_modules", named)
    else:
        draft.set(
            "adapter.target_modules", ["q_proj", "v_proj"], "peft's own for most models; look there for other kinds"
        )
    draft.set("adapter.modules_to_save", saved or None)
    for name, on in flags.items():
        if on:
            draft.set(f"adapter.{name}", value=True)


def _rows(given: Given, draft: Draft, method: str) -> None:
    name, config = given.take("dataset_name"), given.take("dataset_config")
    split, test = given.take("dataset_train_split", "train"), given.take("dataset_test_split", "test")
    sets = given.take("datasets")
    if sets:
        _mixture(sets, draft)
    elif name is not None:
        found = {"path": name, "name": config, "split": None if split == "train" else split}
        draft.sources.append({key: value for key, value in found.items() if value is not None})
    strategy = str(given.look("eval_strategy", "no"))
    if strategy != "no":
        draft.set("data.eval_split", test)
    size = given.number("test_split_size")
    draft.set("data.eval_size", size)
    if truth(given.take("dataset_streaming")) or truth(given.take("streaming")):
        draft.set("data.streaming", value=True)
    field = given.take("dataset_text_field", "text")
    if field != "text":
        draft.set("data.columns", {"text": field})
    if truth(given.take("packing")):
        draft.set("data.packing", value=True)
    how = given.take("packing_strategy", "bfd")
    if how != "bfd" and draft.get("data.packing"):
        draft.lack("packing_strategy", how, "rows are packed whole here, the longest first")
    template = given.take("chat_template_path")
    draft.set("data.chat_template", template)
    for name in ("eos_token", "pad_token"):
        draft.set(f"model.{name}", given.take(name))
    answers, completion = given.take("assistant_only_loss"), given.take("completion_only_loss")
    if method == "sft":
        if truth(answers):
            draft.set("data.train_on", "assistant")
        elif completion is None:
            draft.tell(
                'rows of messages: TRL learns all their tokens, so the job says train_on = "all"; rows of prompt and '
                'completion are learnt by their completion alone: remove it for those, or write train_on = "assistant"'
            )
            draft.set("data.train_on", "all", "TRL's default for rows of messages")
        elif not truth(completion):
            draft.set("data.train_on", "all")
        else:
            draft.set("data.train_on", "completion")


def _mixture(sets: Any, draft: Draft) -> None:
    for each in sets:
        one = Given(each, "datasets.")
        found = {"path": one.take("path"), "name": one.take("name"), "split": one.take("split")}
        files = one.take("data_files")
        if files is not None:
            found["path"] = files
        share = one.number("fraction")
        if share is not None:
            draft.lack("datasets.fraction", share, "a share of the mixture; weight here is how often each row is seen")
        if one.take("columns") is not None:
            draft.drop("datasets.columns", None, "forge takes the columns that it uses")
        common.rest(one, draft, "forge has nothing of the kind for rows")
        draft.sources.append({key: value for key, value in found.items() if value is not None})


def _losses(given: Given, draft: Draft) -> None:
    loss = given.take("loss_type")
    if loss == "chunked_nll":
        draft.set("train.loss_type", "nll", "chunked_nll there: the same loss")
    else:
        draft.set("train.loss_type", loss)
    scale = given.take("scale_rewards")
    if scale is not None:
        word = {True: "group", False: "none", "true": "group", "false": "none"}.get(scale, scale)
        draft.set("train.scale_rewards", word)
    if truth(given.take("log_completions")):
        draft.set("train.num_completions_to_print", 4)
    share = given.number("lmbda")
    if share not in (None, 1, 1.0):
        draft.lack("lmbda", share, "forge distils on the model's own answers alone")
    for name in ("teacher_model_name_or_path", "teacher_model_revision"):
        draft.set(f"train.{name}", given.take(name))


def _rewards(given: Given, draft: Draft) -> None:
    weights = given.take("reward_weights") or []
    model = given.take("reward_model_name_or_path")
    if model is not None:  # the first of its rewards, before the functions
        draft.rewards.append({"model": model, **({"weight": weights[0]} if weights else {})})
        weights = weights[1:]
    for index, name in enumerate(given.words("reward_funcs")):
        weight = {"weight": weights[index]} if index < len(weights) else {}
        if name in REWARDS:
            draft.rewards.append({**REWARDS[name], **weight})
        elif "." in name:
            module, _, function = name.rpartition(".")
            draft.rewards.append({"use": f"{module}:{function}", **weight})
            draft.tell(f"reward function {name}: write it with forge's signature (docs/rewards.md)")
        else:
            draft.lack("reward_funcs", name, "forge has no such reward; write it as a function (docs/rewards.md)")


def _export(given: Given, draft: Draft) -> None:
    push, place, private = given.take("push_to_hub"), given.take("hub_model_id"), given.take("hub_private_repo")
    given.take("hub_strategy")
    if truth(push):
        kind = "adapter" if draft.get("adapter.type") == "lora" else "merged"
        if place is None:
            draft.lack("push_to_hub", value=True, why="name the place: hub_model_id")
            return
        draft.exports.append({"format": kind, "push_to_hub": place})
        if not truth(private):
            draft.tell("push_to_hub: public there by default, private here ([[export]] private = false)")


def _number_of_processes(given: Given, draft: Draft) -> None:
    for name in ("num_processes", "num_machines"):
        count = given.number(name)
        if count not in (None, 1):
            draft.lack(
                name, count, "spreads the training over processes; `[launch]` and the global batch say that here"
            )


def _defaults(draft: Draft, method: str) -> None:
    """Write TRL's defaults that are not forge's."""
    draft.otherwise("train.learning_rate", RATES.get(method, 1e-6))
    draft.otherwise("train.per_device_train_batch_size", 8)
    if draft.get("train.max_steps") is None:
        draft.otherwise("train.num_train_epochs", 1.0 if method in {"grpo", "rloo", "distill"} else 3.0)
