"""LLaMA-Factory's rows: data sets by name (``data/parser.py``), and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge_migrate.draft import truth

if TYPE_CHECKING:
    from forge_migrate.draft import Draft, Given


@dataclass(frozen=True, slots=True)
class Sets:
    """The list of data sets.

    Attributes:
        known: What it says of each.
        home: The folder that it lies in; empty if there is no list.
        place: What the configuration calls that folder.
    """

    known: Mapping[str, Any]
    home: str
    place: str


COLUMNS: Mapping[str, Mapping[str, str]] = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
    "openai": {"messages": "messages", "system": "system", "tools": "tools"},
}
"""Of each ``formatting``: what a column is called in the list, and what forge calls it."""

OWN: Mapping[str, Mapping[str, str]] = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}
"""What a column is called in the rows where the list does not say."""

SHAPES: Mapping[str, str] = {"alpaca": "instruction", "sharegpt": "sharegpt", "openai": "messages"}


def rows(given: Given, draft: Draft, sets: Sets) -> None:
    """Write where the rows come from, and what is made of them."""
    stage = given.look("stage", "sft")
    names, held = given.words("dataset"), given.words("eval_dataset")
    for name in names:
        found = _one(name, sets, stage, draft)
        draft.sources.append(found)
    if held:
        paths = [_one(name, sets, stage, draft)["path"] for name in held]
        draft.set("data.eval_path", paths[0] if len(paths) == 1 else paths)
    size = given.number("val_size")
    if size:
        draft.set("data.eval_size", size)
    limit = given.number("max_samples")
    for source in draft.sources if limit else []:
        if "draw_rows" not in source:
            source["max_rows"] = limit
    if limit and held:
        draft.tell(f"max_samples = {limit} of the held-out rows too there, all of them here")
    if truth(given.take("streaming")):
        draft.set("data.streaming", value=True)
    _template(given, draft, stage)
    _packing(given, draft, stage)
    if truth(given.take("train_on_prompt")):
        draft.set("data.train_on", "all")
    if truth(given.take("mask_history")):
        draft.set("data.train_on", "completion")
    system = given.take("default_system")
    draft.set("data.system_prompt", system)
    _mixture(given, draft)


STRATEGIES: Mapping[str, str] = {"interleave_under": "first_exhausted", "interleave_over": "all_exhausted"}
"""``mix_strategy``: when an epoch ends."""


def _mixture(given: Given, draft: Draft) -> None:
    """Take over how several data sets are mixed."""
    strategy, shares = given.take("mix_strategy", "concat"), given.words("interleave_probs")
    if strategy == "concat":
        return
    if strategy not in STRATEGIES:
        draft.lack("mix_strategy", strategy, "an epoch ends where the first source is used up, or where all are")
    elif len(draft.sources) > 1:
        for source, share in zip(draft.sources, shares or ["1"] * len(draft.sources), strict=False):
            source["share"] = float(share)
        draft.set("data.stopping_strategy", STRATEGIES[strategy])


def _template(given: Given, draft: Draft, stage: str) -> None:
    template, thinking = given.take("template"), given.take("enable_thinking")
    if template in {"default", "empty"} or (template == "alpaca"):
        draft.lack("template", template, "write it as a .jinja file, and its path into [data] chat_template")
    elif template is not None and stage != "pt":
        draft.tell(f"template = {template}: the model's own chat template is taken, which should be the same")
    if (template or "").endswith("_nothink") or thinking is False:
        draft.tell(
            "answers begin with an empty <think> block there: [data] chat_template_kwargs = { enable_thinking = false }"
        )
        draft.set("data.chat_template_kwargs", {"enable_thinking": False})
    elif thinking is not None:
        draft.drop("enable_thinking", thinking, "the chat template's own default")


def _packing(given: Given, draft: Draft, stage: str) -> None:
    packing, neat = given.take("packing"), truth(given.take("neat_packing"))
    if stage == "pt" and packing is None:
        draft.set("data.packing", value=True, note="pt packs by itself there")
        draft.set("data.on_long_row", "split", "texts are joined and cut into blocks there, split and packed here")
    elif neat or truth(packing):
        draft.set("data.packing", value=True)
        if not neat:
            draft.tell("packing: rows see each other there; here each sees itself alone, as with neat_packing")


def _one(name: str, sets: Sets, stage: str, draft: Draft) -> dict[str, Any]:
    """Return a data set as a source."""
    each = sets.known.get(name)
    if each is None:
        where = f"{sets.home}/dataset_info.json" if sets.home else f"{sets.place}/dataset_info.json, which is not there"
        draft.lack("dataset", name, f"is not in {where}; write its file or hub id into [data] path")
        return {"path": name}
    found: dict[str, Any] = {}
    if "file_name" in each:
        found["path"] = f"{sets.home}/{each['file_name']}"
    elif "hf_hub_url" in each:
        found["path"] = each["hf_hub_url"]
    else:
        draft.lack(f"dataset {name}", None, "rows are read from files and the hub of Hugging Face; bring them there")
        found["path"] = name
    for theirs, ours in (("subset", "name"), ("split", "split")):
        if theirs in each:
            found[ours] = each[theirs]
    if "folder" in each:
        draft.lack(f"dataset {name}.folder", each["folder"], "forge has no such key for a source")
    if "num_samples" in each:
        found["draw_rows"] = each["num_samples"]
    kind = each.get("formatting", "alpaca")
    if stage in {"sft", "pt"}:
        found["format"] = "text" if stage == "pt" else SHAPES.get(kind, "auto")
    columns = each.get("columns", {})
    renamed = {}
    for theirs, ours in COLUMNS.get(kind, {}).items():
        called = columns.get(theirs, OWN[kind].get(theirs))
        if theirs in columns and called != ours:
            renamed[ours] = called
    if stage == "pt" and columns.get("prompt", "text") != "text":
        renamed = {"text": columns["prompt"]}
    elif stage == "pt":
        renamed = {}
    if renamed:
        found["columns"] = renamed
    _tags(name, each, found, draft)
    if "images" in columns and columns["images"] != "images":
        found.setdefault("columns", {})["images"] = columns["images"]
    if stage == "sft" and kind == "alpaca":
        draft.tell("alpaca rows: instruction and input are joined by one line break there, by an empty line here")
    return found


ROLES: Mapping[str, tuple[str, str]] = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "system_tag": ("system", "system"),
}
KNOWN = frozenset({"human", "user", "gpt", "assistant", "system", "observation", "tool"})


def _tags(name: str, each: Mapping[str, Any], found: dict[str, Any], draft: Draft) -> None:
    """Take over what the keys of a message and its speakers are called."""
    tags = each.get("tags", {})
    keys = {"role": tags.get("role_tag", "from"), "content": tags.get("content_tag", "value")}
    if tags and keys not in ({"role": "from", "content": "value"}, {"role": "role", "content": "content"}):
        found["message_keys"] = keys
    if tags and keys == {"role": "role", "content": "content"} and found.get("format") == "sharegpt":
        found["format"] = "messages"
        columns = {
            ("messages" if ours == "conversations" else ours): name for ours, name in found.pop("columns", {}).items()
        }
        if columns := {ours: name for ours, name in columns.items() if ours != name}:
            found["columns"] = columns
    roles = {}
    for tag, (usual, role) in ROLES.items():
        called = tags.get(tag, usual)
        if called not in KNOWN:
            roles[called] = role
    if roles:
        found["roles"] = roles
    if "function_tag" in tags:
        draft.tell(
            f"{name}: turns of {tags['function_tag']} are calls as text there; forge takes tool_calls of a message"
        )
