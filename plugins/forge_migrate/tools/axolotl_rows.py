"""Axolotl's rows (``src/axolotl/utils/schemas/datasets.py``, ``prompt_strategies``), and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate import common, trained
from forge_migrate.draft import Given, truth

if TYPE_CHECKING:
    from forge_migrate.draft import Draft

FORMATS: Mapping[str, str] = {
    "alpaca": "instruction",
    "sharegpt": "sharegpt",
    "completion": "text",
    "pretrain": "text",
    "chat_template": "auto",
}
"""``datasets[].type``."""


THINKING = ("reasoning_content", "reasoning", "thinking", "thought")
"""Keys of a message that forge takes for its reasoning."""


def rows(given: Given, draft: Draft) -> None:
    """Write where the rows come from, and what is made of them."""
    template = given.take("chat_template")
    jinja = given.take("chat_template_jinja")
    inputs = given.take("train_on_inputs")
    sets = given.take("datasets") or []
    if not sets and (sets := given.take("pretraining_dataset") or []):
        _pretraining(given, draft)
    sets = [sets] if isinstance(sets, Mapping) else [{"path": sets}] if isinstance(sets, str) else sets
    for index, each in enumerate(sets):
        _source(Given(each, f"datasets[{index}]."), draft)
    tests = [Given(each) for each in given.take("test_datasets") or []]
    paths = [each.take("path") for each in tests]
    if paths:
        draft.set("data.eval_path", paths[0] if len(paths) == 1 else paths)
    _template(template, jinja, draft)
    if truth(inputs):
        draft.set("data.train_on", "all")
    arguments = given.take("chat_template_kwargs")
    draft.set(
        "data.chat_template_kwargs" if draft.get("train.method") == "sft" else "train.chat_template_kwargs", arguments
    )
    size = given.number("val_set_size")
    if size:
        draft.set("data.eval_size", size)
    if truth(given.take("streaming")):
        draft.set("data.streaming", value=True)
    if truth(given.take("sample_packing")):
        draft.set("data.packing", value=True)
    long = given.take("excess_length_strategy", "drop")
    words = {"drop": "drop", "truncate": "truncate", "raise": "error"}
    if draft.get("data.on_long_row") is None:
        draft.set(
            "data.on_long_row", words.get(long, long), "longer rows are dropped there" if long == "drop" else None
        )
    if given.take("shuffle_merged_datasets") is False or truth(given.take("curriculum_sampling")):
        draft.set("train.train_sampling_strategy", "sequential")
    if truth(given.take("group_by_length")):
        draft.set("train.train_sampling_strategy", "group_by_length")
    special = Given(given.take("special_tokens") or {}, "special_tokens.")
    pad = special.take("pad_token")
    if pad is not None:
        draft.drop("special_tokens.pad_token", pad, "padding is in no loss")
    draft.set("model.eos_token", special.take("eos_token"))
    new = special.words("additional_special_tokens")
    trained.new_tokens(draft, given.words("tokens"), new, whole=False)
    for name in ("bos_token", "unk_token"):
        if name in special:
            draft.tell(f"special_tokens.{name} = {special.take(name)}: the tokenizer's own is taken; see `forge data`")
    common.rest(special, draft, "forge takes the tokenizer's own; the chat template writes the end of an answer")
    if "eot_tokens" in given:
        draft.drop("eot_tokens", given.take("eot_tokens"), "the chat template says how an answer ends")


def _pretraining(given: Given, draft: Draft) -> None:
    """Take over what ``pretraining_dataset`` means beside its rows: a stream of texts, split where they are long."""
    if given.look("streaming") is not False:
        draft.set("data.streaming", value=True, note="pretraining_dataset is a stream there")
    if not truth(given.take("pretrain_multipack_attn", default=True)) and truth(given.look("sample_packing")):
        draft.lack(
            "pretrain_multipack_attn", value=False, why="texts that lie in one row see nothing of each other here"
        )
    draft.set("data.on_long_row", "split", "split with an overlap of 256 tokens there, without one here")


def _template(template: Any, jinja: Any, draft: Draft) -> None:
    if jinja is not None:
        if "{" in str(jinja):
            draft.lack(
                "chat_template_jinja", jinja, "write it into a .jinja file, and its path into [data] chat_template"
            )
        else:
            draft.set("data.chat_template", jinja)
    elif template in {"alpaca", "chatml", "gemma", "llama3"}:
        if draft.get("data.chat_template") is None:
            draft.tell(
                f'chat_template = "{template}": the model\'s own is taken where it has one, which should be the same'
            )
            draft.set("data.chat_template", template, "remove it if the model has a chat template of its own")
    elif template not in (None, "tokenizer_default", "jinja") and not str(template).startswith("tokenizer_default"):
        draft.tell(f"chat_template = {template}: the model's own template is taken, which should be the same")


def _source(each: Given, draft: Draft) -> None:
    found: dict[str, Any] = {}
    path, files, kind = each.take("path"), each.take("data_files"), each.take("type")
    if str(path) in {"json", "csv", "parquet", "text"} and files:
        path = files
    elif files:
        path = [f"{path}/{name}" for name in ([files] if isinstance(files, str) else files)]
    if str(path).startswith(("s3://", "gs://", "gcs://", "http://", "https://", "az://")):
        draft.lack("datasets.path", path, "rows are read from files and from the hub; bring it there")
    found["path"] = path
    for name in ("name", "split", "revision"):
        value = each.take(name)
        if value is not None:
            found[name] = value
    each.take("ds_type")
    _format(kind, each, found, draft)
    thinking = {name: each.take(name) for name in ("field_thinking", "template_thinking_key")}
    if thinking["field_thinking"] not in (None, *THINKING):
        found.setdefault("message_keys", {})["reasoning_content"] = thinking["field_thinking"]
    for name, value in thinking.items():
        if value is not None:
            draft.drop(f"datasets.{name}", value, "forge gives reasoning to the template by the key that this reads")
    roles = each.take("roles_to_train")
    if roles is not None and list(roles) != ["assistant"]:
        if "user" in roles or "all" in roles:
            draft.set("data.train_on", "all", f"roles_to_train = {roles} there")
        elif set(roles) != {"gpt"}:
            draft.lack("datasets.roles_to_train", roles, "train_on is assistant or all")
    ends = {name: each.take(name) for name in ("train_on_eos", "train_on_eot")}
    for name, value in ends.items():
        if value not in (None, "turn", True):
            draft.lack(f"datasets.{name}", value, "forge learns the end of every answer that it learns")
    each.take("roles")
    template = each.take("chat_template")
    if template not in (None, "tokenizer_default"):
        _template(template, None, draft)
    common.rest(each, draft, "forge has nothing of the kind for rows")
    draft.sources.append(found)


def _format(kind: Any, each: Given, found: dict[str, Any], draft: Draft) -> None:
    method = draft.get("train.method")
    columns = {"field": "text", "field_messages": "messages", "field_instruction": "instruction"}
    columns |= {"field_input": "input", "field_output": "output", "field_system": "system", "text_column": "text"}
    columns |= {"field_chosen": "chosen", "field_rejected": "rejected"}
    mapped = {ours: each.take(theirs) for theirs, ours in columns.items() if theirs in each}
    mapped = {ours: theirs for ours, theirs in mapped.items() if theirs != ours}
    keys = each.take("message_property_mappings") or {}
    renamed = {ours: theirs for ours, theirs in keys.items() if ours != theirs and ours in {"role", "content"}}
    if renamed and renamed != {"role": "from", "content": "value"}:
        found["message_keys"] = renamed
    if mapped:
        found["columns"] = mapped
    if isinstance(kind, Mapping):
        _custom(Given(kind, "datasets.type."), found, draft)
    elif kind is None:
        if not draft.get("data.streaming") and method == "sft":
            found["format"] = "tokens"
    elif method == "sft" and str(kind).partition(":")[0] in FORMATS:
        word = FORMATS[str(kind).partition(":")[0]]
        if word != "auto":
            found["format"] = word
        if word == "instruction":
            draft.set("data.chat_template", draft.get("data.chat_template") or "alpaca")
            draft.tell(
                "type: alpaca writes a preamble and an '### Input:' heading, which forge's template alpaca has not: "
                "row_template or a .jinja makes the same prompts"
            )
    elif method == "sft":
        draft.lack("datasets.type", kind, "rows must be messages, prompt and completion, instruction or text")
    elif method == "kto":
        why = "a prompt and a completion that are strings get a template there and none here: write them as messages"
        draft.lack("datasets.type", kind, why)
    elif str(kind) not in {"chat_template.default", "chat_template"}:
        draft.tell(f"datasets.type = {kind}: forge goes by the columns; `forge data JOB` shows what it takes them for")


def _custom(kind: Given, found: dict[str, Any], draft: Draft) -> None:
    """Take over a prompt format that is written as a text."""
    plain, short, system = kind.take("format"), kind.take("no_input_format"), kind.take("system_prompt")
    fields = {name: kind.take(f"field_{name}", name) for name in ("instruction", "input", "output", "system")}
    if plain is None or (short is not None and short != plain):
        draft.lack(
            "datasets.type.format", plain, "one text for rows with input, another for those without; write a .jinja"
        )
        return
    text = plain if not system else f"{system}{plain}"
    for name, column in fields.items():
        text = text.replace(f"{{{name}}}", f"{{{column}}}")
    found["row_template"] = {"prompt": text, "completion": f"{{{fields['output']}}}"}
    kind.take("system_format")
    common.rest(kind, draft, "forge has nothing of the kind for rows")
