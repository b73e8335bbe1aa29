"""What a cell of a row holds, in any of the ways in which data sets write it: texts, lists, messages.

Data sets call a speaker by many names, too. Here, and only here, those names are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from forge_huggingface.rows import AlienRow, BadRow, Message, text_of
from forge_huggingface.vision.images import reference

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


def parsed(value: Any, name: str) -> Any:
    """Return a list or object that a source without nested columns (CSV) holds as JSON text."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise BadRow(f"has {name} that are not JSON", f"{error.msg} at column {error.colno}") from error


def value_of(raw: Mapping[str, Any], column: str) -> Any:
    """Return what a row has in a column. Raises :class:`BadRow` if it has nothing there."""
    value = raw.get(column)
    if value is None:
        raise BadRow(f"has nothing in {column!r}", None if column in raw else f"its columns are {', '.join(raw)}")
    return value


def string_of(raw: Mapping[str, Any], column: str) -> str:
    """Return the text that a row has in a column. Raises :class:`BadRow` if it has none there, or an empty one."""
    value = value_of(raw, column)
    if not isinstance(value, str):
        raise BadRow(f"has no text in {column!r}", f"it is a {type(value).__name__}")
    if not value.strip():
        raise BadRow(f"has an empty text in {column!r}")
    return value


def messages_of(value: Any, column: str, *, sharegpt: bool = False) -> list[Message]:
    """Return the messages of a column in forge's form, by ``from`` and ``value`` in a ``sharegpt`` row.

    Raises:
        BadRow: It holds no messages;
            :class:`forge_huggingface.rows.AlienRow` if one has a part that forge cannot train on.
    """
    value = parsed(value, column)
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


def parsed_list(value: Any) -> Any:
    """Return the list that a source without nested columns (CSV) holds as JSON text; any other text is one image."""
    return parsed(value, "images") if isinstance(value, str) and value.lstrip().startswith("[") else value
