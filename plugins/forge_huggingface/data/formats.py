"""Tell the format of a source by its columns, and turn its rows into forge's own form.

Data sets call the same thing by many names. Here, and only here, those names are known: later modules see
:class:`~forge_huggingface.rows.Row`. What was taken and what was left out is reported, because a column that is
ignored without a word is how training goes wrong unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge.api import DataError
from forge_huggingface.rows import (
    AlienRow,
    BadRow,
    Completion,
    Conversation,
    Message,
    Pair,
    Prompt,
    Rated,
    Row,
    Text,
    text_of,
)
from forge_huggingface.vision.images import listed, reference, seat

ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
"""Names of speakers in data sets, and the role that each means."""


@dataclass(frozen=True, slots=True)
class _Format:
    needs: Mapping[str, tuple[str, ...]]
    takes: Mapping[str, tuple[str, ...]]

    def names(self) -> set[str]:
        return {*self.needs, *self.takes}


_IMAGES: dict[str, tuple[str, ...]] = {"images": ("images", "image")}
_TEMPLATE: dict[str, tuple[str, ...]] = {
    "tools": ("tools",),
    "chat_template_kwargs": ("chat_template_kwargs",),
    **_IMAGES,
}
_SYSTEM: dict[str, tuple[str, ...]] = {"system": ("system", "system_prompt")}

FORMATS: Mapping[str, _Format] = {
    "messages": _Format({"messages": ("messages", "conversation", "conversations")}, _TEMPLATE),
    "sharegpt": _Format({"conversations": ("conversations", "conversation", "messages")}, _SYSTEM | _TEMPLATE),
    "prompt-completion": _Format({"prompt": ("prompt",), "completion": ("completion",)}, _TEMPLATE),
    "instruction": _Format(
        {"instruction": ("instruction",), "output": ("output", "response")}, {"input": ("input",), **_SYSTEM, **_IMAGES}
    ),
    "input-output": _Format({"input": ("input", "question"), "output": ("output", "answer")}, _SYSTEM | _IMAGES),
    "text": _Format({"text": ("text",)}, {}),
    "preference": _Format(
        {"chosen": ("chosen",), "rejected": ("rejected",)}, {"prompt": ("prompt",), "margin": ("margin",), **_TEMPLATE}
    ),
    "unpaired-preference": _Format(
        {"prompt": ("prompt",), "completion": ("completion",), "label": ("label",)}, _TEMPLATE
    ),
    "prompt": _Format({"prompt": ("prompt",)}, {}),
    "question": _Format({"question": ("question", "problem", "instruction", "input")}, _SYSTEM),
}
"""What each format needs and takes: forge's name, then the column names that it goes by. In the order of detection."""

_LISTS = {"messages": "role", "sharegpt": "from"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The format of a source, as found in its first row.

    Attributes:
        format: One of :data:`FORMATS`.
        columns: forge's name of a column, and the source's.
        ignored: Columns that are not used.
        auto_images: Whether the column of images goes by forge's names, not by one that the job gives.
    """

    format: str
    columns: Mapping[str, str]
    ignored: tuple[str, ...]
    auto_images: bool = True

    def convert(self, raw: Mapping[str, Any]) -> Row:
        """Turn a row of the source into forge's form.

        Raises:
            BadRow: It cannot be used; :class:`AlienRow` if it holds what forge cannot train on at all.
        """
        if self.format == "text":
            return Text(_string(raw, self.columns["text"]))
        if self.format == "prompt-completion":
            return self._prompt_completion(raw)
        if self.format == "preference":
            return self._preference(raw)
        if self.format == "unpaired-preference":
            label = _value(raw, self.columns["label"])
            if not isinstance(label, bool) and label not in (0, 1):
                raise BadRow(f"has no truth value in {self.columns['label']!r}", f"it is {label!r}")
            return Rated(self._prompt_completion(raw), bool(label))
        if self.format in ("prompt", "question"):
            return self._asked(raw)
        if self.format in _LISTS:
            column = self.columns["messages" if self.format == "messages" else "conversations"]
            messages = _messages(_value(raw, column), column, sharegpt=self.format == "sharegpt")
            system = self._optional(raw, "system")
            if system and messages[0]["role"] != "system":
                messages = [{"role": "system", "content": system}, *messages]
            return self._conversation(raw, messages, len(messages) - 1, turns=True)
        names = ("instruction", "output") if self.format == "instruction" else ("input", "output")
        question, answer = (_string(raw, self.columns[name]) for name in names)
        if self.format == "instruction" and (extra := self._optional(raw, "input")):
            question = f"{question}\n\n{extra}"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if system := self._optional(raw, "system"):
            messages.insert(0, {"role": "system", "content": system})
        messages, pictures = seat(messages, self._images(raw))
        return Conversation(tuple(messages), len(messages) - 1, turns=False, pictures=pictures)

    def _images(self, raw: Mapping[str, Any]) -> list[Any]:
        # Rows of one file may have images or not, so later rows are not bound to what the first one had.
        columns = _IMAGES["images"] if self.auto_images else (self.columns["images"],)
        found = next((value for column in columns if (value := raw.get(column)) is not None), None)
        return listed(_parsed_list(found))

    def _preference(self, raw: Mapping[str, Any]) -> Pair:
        names, key = self.columns, self.columns.get("prompt")
        sides: list[Conversation | Completion] = []
        if key is not None:
            sides = [self._prompt_completion(raw, answer=name) for name in ("chosen", "rejected")]
        else:
            texts = [_value(raw, names[name]) for name in ("chosen", "rejected")]
            if all(isinstance(text, str) for text in texts):
                chosen, rejected = (_string(raw, names[name]) for name in ("chosen", "rejected"))
                start = _shared(chosen, rejected)
                sides = [Completion(text[:start], text[start:]) for text in (chosen, rejected)]
            else:
                both = [_messages(text, names[name]) for text, name in zip(texts, ("chosen", "rejected"), strict=True)]
                alike = next((at for at, pair in enumerate(zip(*both, strict=False)) if pair[0] != pair[1]), None)
                start = min(map(len, both)) if alike is None else alike
                if any(start >= len(messages) for messages in both):
                    raise BadRow("has the same answer as chosen and as rejected", "there is nothing to prefer")
                sides = [self._conversation(raw, messages, start, turns=False) for messages in both]
        margin = raw.get(names.get("margin", "margin"))
        if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
            raise BadRow("has a margin that is not a number", f"it is a {type(margin).__name__}")
        return Pair(sides[0], sides[1], None if margin is None else float(margin))

    def _asked(self, raw: Mapping[str, Any]) -> Prompt:
        key = self.columns[self.format]
        asked = _parsed_list(_value(raw, key))
        others = {name: value for name, value in raw.items() if name != key}
        if self.format == "prompt" and not isinstance(asked, str):
            messages = _messages(asked, key)
            if messages[-1]["role"] == "assistant":
                raise BadRow("ends with an assistant turn", "the model is to give the answer", "remove that turn")
            return Prompt(tuple(messages), others)
        text = _string(raw, key)
        if self.format == "prompt":
            return Prompt(text, others)
        messages = [{"role": "user", "content": text}]
        if system := self._optional(raw, "system"):
            messages.insert(0, {"role": "system", "content": system})
        return Prompt(tuple(messages), others)

    def _prompt_completion(self, raw: Mapping[str, Any], answer: str = "completion") -> Conversation | Completion:
        prompt, completion = (_value(raw, self.columns[name]) for name in ("prompt", answer))
        if isinstance(prompt, str) and isinstance(completion, str):
            prompt, completion = (_string(raw, self.columns[name]) for name in ("prompt", answer))
            if not self._images(raw):
                return Completion(prompt, completion)
            # Plain text has no place for an image; the model's template does.
            prompt, completion = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": completion}]
        if isinstance(prompt, str) or isinstance(completion, str):
            raise BadRow("mixes a string and messages", f"prompt and {answer} must both be strings or both lists")
        first = _messages(prompt, self.columns["prompt"])
        second = _messages(completion, self.columns[answer])
        if answer != "completion" and second[: len(first)] == first:  # the prompt stands in the answer's list as well
            second = second[len(first) :]
        return self._conversation(raw, [*first, *second], len(first), turns=False)

    def _conversation(
        self, raw: Mapping[str, Any], messages: list[Message], start: int, *, turns: bool
    ) -> Conversation:
        if messages[0]["role"] == "assistant":
            raise BadRow("starts with an assistant turn", "there is nothing that it answers")
        tools = _parsed(raw.get(self.columns.get("tools", "tools")), "tools")
        if tools is not None and not isinstance(tools, list):
            raise BadRow("has tools that are not a list")
        extra = (
            _parsed(raw.get(self.columns.get("chat_template_kwargs", "chat_template_kwargs")), "template keys") or {}
        )
        if not isinstance(extra, dict):
            raise BadRow("has chat_template_kwargs that are not an object")
        messages, pictures = seat(messages, self._images(raw))
        return Conversation(tuple(messages), start, turns, tuple(tools) if tools else None, extra, pictures)

    def _optional(self, raw: Mapping[str, Any], name: str) -> str | None:
        column = self.columns.get(name)
        value = raw.get(column) if column else None
        if value is not None and not isinstance(value, str):
            raise BadRow(f"has no text in {column!r}", f"it is a {type(value).__name__}")
        return value if value and value.strip() else None


def detect(
    format: str,  # noqa: A002
    columns: Mapping[str, str],
    first: Mapping[str, Any],
    where: str,
    fitting: Sequence[str] = tuple(FORMATS),
    whose: str = 'method = "sft"',
) -> Shape:
    """Return the shape of a source.

    Args:
        format: The job's format, or ``"auto"``.
        columns: The job's names: what forge calls a column, and what the source calls it.
        first: The first row.
        where: The source's name for errors.
        fitting: The formats that can be trained on, in the order of detection.
        whose: Who trains on them, for errors.

    Raises:
        DataError: The columns fit no format, or not the one that the job names.
    """
    if format != "auto" and format not in fitting:
        raise DataError(
            f'format = "{format}" cannot be used under {whose}',
            f"it trains on {' or '.join(fitting)}",
            "change one of them",
        )
    there = ", ".join(map(repr, first)) or "none"
    missing = [column for column in columns.values() if column not in first]
    if missing:
        raise DataError(f"{where} has no column {missing[0]!r}", f"its columns are {there}", "mend [data] columns")
    wanted = list(fitting) if format == "auto" else [format]
    named = {name: FORMATS[name].names() for name in wanted}
    fitting = [name for name in wanted if set(columns) <= named[name]]
    if not fitting:
        known = sorted(set().union(*named.values()))
        stranger = next((name for name in columns if name not in known), None)
        problem = f"{stranger!r} is no name of forge" if stranger else f"no format has {' and '.join(columns)} together"
        raise DataError("[data] columns cannot be used", problem, f"the names are {', '.join(known)}")
    for name in fitting:
        if shape := _match(name, columns, first):
            return shape
    needs = "; ".join(f"{name} needs {_describe(name)}" for name in wanted)
    what = f"{where} is not of the format {format}" if format != "auto" else f"the format of {where} is not known"
    # Not where the job names a format: a row that lacks a column of it may well be a prompt alone.
    others = (name for name in FORMATS if name not in wanted and _match(name, columns, first))
    if format == "auto" and (other := next(others, None)):
        what = f"{where} has rows of the format {other}, which {whose} cannot train on"
    raise DataError(
        what, f"its columns are {there}, and {needs}", "name the columns in [data] columns, or mend the file"
    )


def _describe(name: str) -> str:
    text = " and ".join("/".join(aliases) for aliases in FORMATS[name].needs.values())
    if name in _LISTS:
        text += ' of {"role", "content"}' if name == "messages" else ' of {"from", "value"}'
    return text


def _match(name: str, columns: Mapping[str, str], first: Mapping[str, Any]) -> Shape | None:
    used: dict[str, str] = dict(columns)
    for key, aliases in FORMATS[name].needs.items():
        found = used.get(key) or next((alias for alias in aliases if alias in first), None)
        if found is None:
            return None
        if name in _LISTS and not _is_list_of(_loosely_parsed(first[found]), _LISTS[name]):
            found = next((a for a in aliases if _is_list_of(_loosely_parsed(first.get(a)), _LISTS[name])), None)
            if found is None or key in columns:
                return None
        used[key] = found
    for key, aliases in FORMATS[name].takes.items():
        found = used.get(key) or next((alias for alias in aliases if alias in first), None)
        if found is not None:
            used[key] = found
    kept = name in ("prompt", "question")  # all other columns go to reward functions
    ignored = () if kept else tuple(column for column in first if column not in used.values())
    return Shape(name, used, ignored, auto_images="images" not in columns)


def _shared(first: str, second: str) -> int:
    """Return where two texts part, without a space before it: a prompt that both begin with, as TRL takes it."""
    pairs = enumerate(zip(first, second, strict=False))
    part = next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
    if part == min(len(first), len(second)):
        raise BadRow(
            "has an answer that is the beginning of the other",
            "the prompt cannot be told from it",
            "give the prompt in a column of its own",
        )
    return part - 1 if part and first[part - 1] == " " else part


def _is_list_of(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]


def _loosely_parsed(value: Any) -> Any:
    try:
        return _parsed(value, "")
    except BadRow:
        return None


def _parsed(value: Any, name: str) -> Any:
    """Return a list or object that a source without nested columns (CSV) holds as JSON text."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise BadRow(f"has {name} that are not JSON", f"{error.msg} at column {error.colno}") from error


def _value(raw: Mapping[str, Any], column: str) -> Any:
    value = raw.get(column)
    if value is None:
        raise BadRow(f"has nothing in {column!r}", None if column in raw else f"its columns are {', '.join(raw)}")
    return value


def _string(raw: Mapping[str, Any], column: str) -> str:
    value = _value(raw, column)
    if not isinstance(value, str):
        raise BadRow(f"has no text in {column!r}", f"it is a {type(value).__name__}")
    if not value.strip():
        raise BadRow(f"has an empty text in {column!r}")
    return value


def _messages(value: Any, column: str, *, sharegpt: bool = False) -> list[Message]:
    value = _parsed(value, column)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadRow(f"has no list of messages in {column!r}", f"it is a {type(value).__name__}")
    if not value:
        raise BadRow(f"has no messages in {column!r}", "the list is empty")
    return [_message(item, number, sharegpt=sharegpt) for number, item in enumerate(value, 1)]


def _message(item: Any, number: int, *, sharegpt: bool) -> Message:
    where = f"message {number}"
    if not isinstance(item, Mapping):
        raise BadRow("has a message that is not an object", where)
    role_key, content_key = ("from", "value") if sharegpt else ("role", "content")
    speaker = item.get(role_key)
    if speaker is None:
        raise BadRow(f"has a message without {role_key!r}", where)
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise BadRow(f"has the unknown role {speaker!r}", where, f"known are {', '.join(ROLES)}")
    message = {key: kept for key, kept in item.items() if kept is not None and key not in (role_key, content_key)}
    content = _content(item.get(content_key), where)
    empty = not isinstance(content, list) and not content.strip()
    if empty and role in ("user", "assistant") and not message.get("tool_calls"):
        raise BadRow(f"has an empty {role} turn", where)
    return {"role": role, "content": content, **message}


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return a message's text; with its images, if it has any, as a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise BadRow("has a message without text", f"{where} holds a {type(content).__name__}")
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind in (None, "text", "input_text") and isinstance(text, str):
            parts.append({"type": "text", "text": text})
        elif kind in ("image", "image_url", "input_image") or (kind is None and part.get("image") is not None):
            parts.append({"type": "image", "image": reference(part)})
        else:
            found = kind if isinstance(part, Mapping) else type(part).__name__
            raise AlienRow(
                f"has a message with a part of type {found!r}",
                "only text and images are supported; audio, video and others are not",
                "keep only parts of type text and image",
            )
    return parts if any(part["type"] == "image" for part in parts) else text_of(parts)


def _parsed_list(value: Any) -> Any:
    """Return the list that a source without nested columns (CSV) holds as JSON text; any other text is one image."""
    return _parsed(value, "images") if isinstance(value, str) and value.lstrip().startswith("[") else value
