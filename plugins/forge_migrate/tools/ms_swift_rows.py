"""The rows of an ms-swift command, and what judges answers: data sets, loss scales, rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate.draft import truth

if TYPE_CHECKING:
    from forge_migrate.draft import Draft, Given

REWARDS: Mapping[str, Mapping[str, Any]] = {
    "accuracy": {"use": "math-equal", "args": {"column": "solution"}},
    "format": {
        "use": "regex",
        "args": {"pattern": r"<think>[\s\S]*?</think>\s*<answer>[\s\S]*?</answer>", "mode": "full"},
    },
}

_TURNS = "write what it does as [train] tools, or as a class in [train] environment (docs/rewards.md)"

TURNS: Mapping[str, str] = {
    "multi_turn_scheduler": f"it is code of ms-swift's: {_TURNS}",
    "max_turns": "in forge max_tool_calling_iterations is how often calls are answered, one less than the turns",
    "use_gym_env": f"it is a program of its own: {_TURNS}",
    "gym_env": f"it is a program of its own: {_TURNS}",
    "context_manager": f"it is code of ms-swift's: {_TURNS}",
    "completion_length_limit_scope": "max_completion_length is for all turns together here",
}
"""Keys of conversations with several turns, and why forge has no equivalent."""


def rows(given: Given, draft: Draft) -> None:
    """Take over the data sets, and what is learnt of a row."""
    sets, held = _listed(given.take("dataset")), _listed(given.take("val_dataset"))
    for name in sets:
        draft.sources.append(_source(name, draft))
    paths = [_source(name, draft)["path"] for name in held]
    if paths:
        draft.set("data.eval_path", paths[0] if len(paths) == 1 else paths)
    size = given.number("split_dataset_ratio")
    if size:
        draft.set("data.eval_size", size)
    if truth(given.take("streaming")):
        draft.set("data.streaming", value=True)
    if truth(given.take("packing")):
        draft.set("data.packing", value=True)
    draft.set("data.system_prompt", given.take("system"))
    columns = given.take("columns")
    if isinstance(columns, Mapping):
        draft.set("data.columns", {ours: theirs for theirs, ours in columns.items()})
    if not truth(given.take("strict")):
        draft.set("data.on_bad_row", "drop", "bad rows are dropped there (strict is false)")
        draft.set("data.max_bad_rows", 1.0)
    long = given.take("truncation_strategy", "delete")
    words = {"delete": "drop", "right": "truncate", "split": "split", "raise": "error"}
    if long in words:
        draft.set("data.on_long_row", words[long])
    else:
        draft.lack("truncation_strategy", long, "forge cuts rows at their end")
    scale = given.take("loss_scale", "last_round" if draft.get("train.method") != "sft" else "default")
    parts = [part for part in str(scale).replace("+", ",").split(",") if part]
    if "ignore_empty_think" in parts:
        draft.set("data.mask_empty_reasoning", value=True)
        parts.remove("ignore_empty_think")
    learnt = {"default": None, "last_round": "completion", "all": "all"}
    if parts and parts[0] in learnt:
        if draft.get("train.method") == "sft":
            draft.set("data.train_on", learnt[parts[0]] or draft.get("data.train_on"))
    elif parts:
        draft.lack("loss_scale", scale, "train_on is assistant, completion or all")
    if given.take("dataset_shuffle") is False or given.take("train_dataloader_shuffle") is False:
        draft.set("train.train_sampling_strategy", "sequential")
    thinking = given.take("enable_thinking")
    if thinking is not None:
        draft.set("data.chat_template_kwargs", {"enable_thinking": truth(thinking)})
    template = given.take("template")
    if template is not None:
        draft.tell(f"template = {template}: the model's own chat template is taken, which should be the same")
    pixels = given.number("max_pixels")
    draft.set("data.max_pixels", pixels)
    for name in ("model_name", "model_author"):
        value = given.take(name)
        if value is not None and any("self-cognition" in str(each) for each in sets):
            draft.lack(name, value, "stands for {{NAME}} and {{AUTHOR}} in the rows: write it into them")
        elif value is not None:
            draft.drop(name, value, "no rows name it")


def _listed(value: Any) -> list[str]:
    return [] if value is None else [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _source(name: str, draft: Draft) -> dict[str, Any]:
    """Return ``id:subset#count`` as a source."""
    place, _, count = name.partition("#")
    for hub in ("HF::", "MS::", "hf::", "ms::"):
        place = place.removeprefix(hub)
    path, _, subset = place.partition(":") if not place.startswith((".", "/", "~")) else (place, "", "")
    found: dict[str, Any] = {"path": path}
    if subset:
        found["name"] = subset
    if count.isdigit():
        found["draw_rows"] = int(count)
    elif count:
        draft.lack("dataset", name, "a number of rows is due behind #")
    if path.startswith("swift/"):
        draft.tell(f"{path}: ms-swift has code of its own for it; the hub's rows may differ")
    return found


def rewards(given: Given, draft: Draft) -> None:
    """Take over the functions and models that judge answers, and how answers come about."""
    weights = given.take("reward_weights") or []
    weights = weights if isinstance(weights, list) else [weights]
    functions = given.words("reward_funcs")
    for index, name in enumerate(functions):
        weight = {"weight": weights[index]} if index < len(weights) else {}
        if name in REWARDS:
            draft.rewards.append({**REWARDS[name], **weight})
        else:
            draft.lack("reward_funcs", name, "write it as a function with forge's signature (docs/rewards.md)")
    for index, name in enumerate(given.words("reward_model"), len(functions)):  # they come after the functions
        draft.rewards.append({"model": name, **({"weight": weights[index]} if index < len(weights) else {})})
    for name in given.words("reward_model_plugin"):
        if name != "default":
            draft.lack("reward_model_plugin", name, "a reward model reads prompt and answer here; write a function")
    for name, why in TURNS.items():
        if (value := given.take(name)) not in (None, False, "false"):
            draft.lack(name, value, why)
    scale = given.take("scale_rewards")
    if scale is not None:
        draft.set("train.scale_rewards", {"True": "group", "False": "none"}.get(str(scale), scale))
    if truth(given.take("log_completions")):
        draft.set("train.num_completions_to_print", 4)
    if truth(given.take("overlong_filter")):
        draft.set("train.mask_truncated_completions", value=True)
    for name in ("vllm_server_host", "vllm_server_port", "vllm_tensor_parallel_size"):
        draft.set(f"train.{name}", given.take(name))
    limit, level = given.number("vllm_max_model_len"), given.number("sleep_level")
    draft.set("train.vllm_max_model_length", limit)
    if level:
        draft.set("train.vllm_enable_sleep_mode", value=True)
    teacher = given.take("teacher_model")
    draft.set("train.teacher_model_name_or_path", teacher)
    if draft.get("train.method") == "distill":
        draft.set("train.lmbda", given.number("lmbda", 0.5), "share of steps on the model's own answers")
        if truth(given.take("seq_kd")):
            draft.set("train.seq_kd", value=True)
