"""The messages of a row in forge's form, in any of the ways in which data sets write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.conversion.calls import calls_of, spoken_calls
from forge_huggingface.data.conversion.cells import parsed
from forge_huggingface.data.conversion.roles import IN_LOSS, OUT_OF_LOSS, REASONING, in_loss
from forge_huggingface.rows import CALL_TEXT, AlienRow, BadRow, Message, text_of
from forge_huggingface.sources.json_rows import load
from forge_huggingface.vision.images import reference

if TYPE_CHECKING:
    from forge_huggingface.data.conversion.roles import Speech

_IMAGES = ("image", "image_url", "input_image")
_MEDIA = frozenset({*_IMAGES, "audio", "audio_url", "input_audio", "video", "video_url"})
_FLAGS = frozenset({*IN_LOSS, *OUT_OF_LOSS})
_REASONING = frozenset(REASONING)


@dataclass(slots=True)
class Turns:
    """Messages, and for each whether its row says that it is in the loss.

    Attributes:
        messages: The messages.
        flags: What the row says of each; None where it says nothing.
    """

    messages: list[Message] = field(default_factory=list)
    flags: list[bool | None] = field(default_factory=list)

    @classmethod
    def said(cls, role: str, content: str) -> Turns:
        """Return one message of plain text."""
        return cls([{"role": role, "content": content}], [None])

    def __add__(self, other: Turns) -> Turns:
        return Turns(self.messages + other.messages, self.flags + other.flags)

    def __len__(self) -> int:
        return len(self.messages)

    def since(self, start: int) -> Turns:
        """Return the messages from a place on."""
        return Turns(self.messages[start:], self.flags[start:])

    def until(self, end: int) -> Turns:
        """Return the messages before a place."""
        return Turns(self.messages[:end], self.flags[:end])

    def begins_with(self, other: Turns) -> bool:
        """Tell whether these begin with other messages."""
        return self.messages[: len(other)] == other.messages

    @property
    def first(self) -> str:
        """The role of the first message."""
        return str(self.messages[0]["role"])

    @property
    def last(self) -> str:
        """The role of the last message."""
        return str(self.messages[-1]["role"])

    @property
    def learned(self) -> tuple[bool | None, ...]:
        """The flags; empty where no message has one."""
        return () if self.flags.count(None) == len(self.flags) else tuple(self.flags)


def turns_of(value: Any, column: str, speech: Speech, style: tuple[str, str] | None = None) -> Turns:
    """Return the messages of a column: a list of them, one alone, or JSON text of these.

    Args:
        value: What the column holds.
        column: Its name.
        speech: How messages are written.
        style: The keys for speaker and text; those of the first message if none are given.

    Raises:
        BadRow: It holds no messages;
            :class:`forge_huggingface.rows.AlienRow` if one has a part that forge cannot train on.
    """
    value = parsed(value, column)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadRow(f"has no list of messages in {column!r}", f"it is a {type(value).__name__}")
    if not value:
        raise BadRow(f"has no messages in {column!r}", "the list is empty")
    style = style or speech.style(value[0])
    turns = Turns()
    for number, item in enumerate(value, 1):
        message, flag, calls = _message(item, number, speech, style)
        # Calls at the same time are one turn, and so are a text and the calls behind it: the model speaks once.
        before = turns.messages[-1] if calls and turns.messages else None
        if before is not None and before["role"] == "assistant" and turns.flags[-1] == flag and before.keys() <= _ONE:
            texts = [each.get(CALL_TEXT) for each in (before, message) if "tool_calls" in each]
            before["tool_calls"] = [*before.get("tool_calls", ()), *message["tool_calls"]]
            before.pop(CALL_TEXT, None)
            if None not in texts:
                before[CALL_TEXT] = "\n".join(map(str, texts))
            continue
        turns.messages.append(message)
        turns.flags.append(flag)
    return turns


_ONE = frozenset({"role", "content", "reasoning_content", "tool_calls", CALL_TEXT})


def written_messages(value: Any, speech: Speech, *, alone: bool = True) -> Any:
    """Return what a cell holds that may be a text or messages: a list of messages, whose text may be JSON, or itself.

    A text is messages only if it is JSON of them: an answer may well be a list of something else.

    Args:
        value: What the cell holds.
        speech: How messages are written.
        alone: Whether a text that is a single JSON object may be a message; without, only a list of them is.

    Raises:
        BadRow: It is JSON of messages, and an object has a key twice.
    """
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, str) and value.lstrip()[:1] in (("[", "{") if alone else ("[",)):
        try:
            loaded = json.loads(value)
        except (ValueError, RecursionError):
            return value
        items = [loaded] if isinstance(loaded, dict) else loaded
        if isinstance(items, list) and items and all(_spoken(item, speech) for item in items):
            loaded = load(value, "messages")
            return [loaded] if isinstance(loaded, dict) else loaded
    return value


def lone(value: Any) -> bool:
    """Tell whether a cell is a text that may be one message as JSON: what stands beside it says whether it is."""
    return isinstance(value, str) and value.lstrip()[:1] == "{"


def _spoken(item: Any, speech: Speech) -> bool:
    """Tell whether what a text holds is a message: it has a known speaker, and something that he says."""
    return isinstance(item, Mapping) and any(
        speech.knows(item.get(speaker)) and (said in item or "tool_calls" in item)
        for speaker, said in speech.styles.values()
    )


def is_list_of(value: Any, *keys: str) -> bool:
    """Tell whether a value is a list of objects with one of the keys."""
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and any(key in value[0] for key in keys)
    )


def _message(item: Any, number: int, speech: Speech, style: tuple[str, str]) -> tuple[Message, bool | None, bool]:
    """Return a message, what its flags say, and whether its speaker says that it is a call."""
    if not isinstance(item, Mapping):
        raise BadRow("has a message that is not an object", f"message {number}")
    role_key, content_key = style
    speaker = item.get(role_key)
    if speaker is None:
        raise BadRow(f"has a message without {role_key!r}", f"message {number}; its keys are {', '.join(item)}")
    role, calling = speech.role(speaker, number)
    content = item.get(content_key)
    message: Message = {"role": role, "content": content}
    flag: bool | None = None
    if len(item) > 2 or content_key not in item:
        flag = _others(message, item, number, speech, style)
    if calling:
        if "tool_calls" in message:
            raise BadRow("has a call as text and as tool_calls", f"message {number}", "keep one of them")
        message["tool_calls"] = _calls(content, number)
        message["content"] = ""
        if isinstance(content, str):
            message[CALL_TEXT] = content.strip()
        return message, flag, True
    if type(content) is not str:
        message["content"] = content = _content(content, f"message {number}", result=role == "tool")
    if (
        (role == "user" or (role == "assistant" and "tool_calls" not in message and "reasoning_content" not in message))
        and isinstance(content, str)
        and (not content or content.isspace())
    ):
        raise BadRow(f"has an empty {role} turn", f"message {number}")
    return message, flag, False


def _others(
    message: Message, item: Mapping[str, Any], number: int, speech: Speech, style: tuple[str, str]
) -> bool | None:
    """Put a message's further keys where forge has them, and return what its flags say."""
    flags: dict[str, bool] = {}
    for key, value in item.items():
        if value is None or key in style:
            continue
        name = speech.renamed.get(key, key)
        if name in _FLAGS:
            flags[key] = in_loss(key, value, number)
        elif name == "tool_calls" or name == "function_call":
            if not value or not (calls := calls_of(value, number)):
                continue
            if "tool_calls" in message:
                raise BadRow("has a message with tool_calls and function_call", f"message {number}", "keep one of them")
            message["tool_calls"] = calls
        elif name in _REASONING and message["role"] == "assistant" and isinstance(value, str):
            if not value or value.isspace():
                continue
            if message.setdefault("reasoning_content", value) != value:
                raise BadRow("has a message with two different reasonings", f"message {number}", "keep one of them")
        elif name in message:  # the speaker or the text under the other name, too
            if value not in (message[name], item[style[name == "content"]]):
                what = style[name == "content"]
                raise BadRow(f"has a message with {what!r} and {key!r}", f"message {number}", "keep one of them")
        elif name == "name" and not isinstance(value, str):
            raise BadRow("has a name that is not a text", f"message {number}: it is a {type(value).__name__}")
        else:
            message[name] = value
    if len(set(flags.values())) > 1:
        names = " and ".join(map(repr, flags))
        raise BadRow(f"has a message whose {names} contradict each other", f"message {number}", "keep one of them")
    return next(iter(flags.values()), None)


def _calls(content: Any, number: int) -> list[dict[str, Any]]:
    """Return the calls of a message whose speaker says that it is one."""
    if isinstance(content, list) and is_list_of(content, "text"):
        content = text_of(content)
    if content is None:
        content = ""
    return spoken_calls(content, number) if isinstance(content, str) else calls_of(content, number)


def _content(content: Any, where: str, *, result: bool) -> str | list[dict[str, Any]]:
    """Return a message's text; with its images, if it has any, as a list of parts.

    Args:
        content: What the message holds.
        where: The message, for errors.
        result: It is what a tool gave back, which may be any JSON.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if result and not (isinstance(content, list) and all(isinstance(part, str) or _is_part(part) for part in content)):
        return json.dumps(content, ensure_ascii=False)
    if not isinstance(content, Sequence):
        raise BadRow("has a message without text", f"{where} holds a {type(content).__name__}")
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind in (None, "text", "input_text") and isinstance(text, str):
            parts.append({"type": "text", "text": text})
        elif kind in _IMAGES or (kind is None and part.get("image") is not None):
            parts.append({"type": "image", "image": reference(part)})
        else:
            found = kind if isinstance(part, Mapping) else type(part).__name__
            raise AlienRow(
                f"has a message with a part of type {found!r}",
                "only text and images are supported; audio, video and others are not",
                "keep only parts of type text and image",
            )
    return parts if any(part["type"] == "image" for part in parts) else text_of(parts)


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and ("text" in part or part.get("type") in _MEDIA)
