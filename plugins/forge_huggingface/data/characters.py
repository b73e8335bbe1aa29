"""Characters that no tokenizer should see: they crash it, or come from what is no text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import BadRow, Conversation, Ids, Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forge_huggingface.rows import Row


_HALF = re.compile("[\ud800-\udfff]")
_EITHER = re.compile("[\0\ud800-\udfff]")


def unfit(row: Row) -> BadRow | None:
    """Return what is wrong with a row that holds a NUL character or half a surrogate pair; None if it holds none."""
    if isinstance(row, Ids):
        return None
    if isinstance(row, Conversation) and _plain(row):
        return None
    if isinstance(row, Prompt):  # its other columns go to functions, which may want a NUL; but halves cannot be stored
        found = _found(row.prompt, _EITHER) or _found(row.columns, _HALF)
    else:
        found = _found(row, _EITHER)
    if found is None:
        return None
    if found == "\0":
        return BadRow("has a NUL character in its text", "text has none, binary data has", "remove it")
    return _halved(found, "text")


def halved_key(keys: Iterable[Any]) -> BadRow | None:
    """Return what is wrong with keys of which one holds half a surrogate pair; None if none does."""
    for key in keys:
        if isinstance(key, str) and not key.isascii() and (match := _HALF.search(key)):
            return _halved(match[0], "keys")
    return None


def _halved(found: str, where: str) -> BadRow:
    return BadRow(
        f"has half a character in its {where}, \\u{ord(found):04x}",
        "a surrogate stands for something only in a pair; a text that was cut within one ends so",
        "remove it, or write the whole character",
    )


def _plain(row: Conversation) -> bool:
    """Tell at a glance that there is nothing to find: so it is with all rows but a few, and there are millions."""
    texts = [value for message in row.messages for value in message.values()]
    return not (row.tools or row.extra or row.pictures) and all(
        type(text) is str and text.isascii() and "\0" not in text for text in texts
    )


def _found(value: Any, which: re.Pattern[str]) -> str | None:
    for text in _texts(value):
        if not (text.isascii() and "\0" not in text) and (match := which.search(text)):
            return match[0]
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        for each in value:
            yield from _texts(each)
