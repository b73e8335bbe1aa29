"""Columns that a row has and does not use, though they are the format's own: what must not be left out is a bad row.

All others are counted and told by :class:`.columns.Columns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.conversion.columns import several
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from forge_huggingface.data.conversion.parts import Parts

_HEEDED = {
    "messages": ("system",),
    "sharegpt": ("system",),
    "instruction": ("input", "system"),
    "input-output": ("system",),
    "preference": ("question", "input", "system", "history"),
    "unpaired-preference": ("system",),
}
"""What a row of a format may say only once, whatever it calls it; a system text and a history are said in any case."""

_ASKED = ("prompt", "question", "instruction", "messages")


def heed(parts: Parts, format: str, raw: Mapping[str, Any], left: Sequence[str]) -> None:  # noqa: A002
    """Refuse a row that loses a text which changes what is learnt.

    Args:
        parts: Its columns, and those that were taken.
        format: Its format.
        raw: The row.
        left: The columns of the format that it has and does not use.

    Raises:
        BadRow: It has two texts for the same thing, or one that stands nowhere in what is trained on.
    """
    names, taken = parts.columns.names, parts.columns.taken
    for name in _HEEDED.get(format, ()):
        for column in names[name]:
            if column not in left:
                continue
            used = next((other for other in names[name] if other in taken), None)
            if used is not None:
                if raw[used] != raw[column]:
                    raise several(name, used, column)
            elif name in ("system", "history"):
                if not _stands(parts, raw, column):
                    raise _lost(parts, raw, column)
            elif name == "input":
                _one_question(parts, raw, column)


def _one_question(parts: Parts, raw: Mapping[str, Any], extra: str) -> None:
    """Refuse an input beside a question: beside an instruction it would be a part of what is asked."""
    question = next((column for column in parts.columns.names["question"] if column in parts.columns.taken), None)
    if question is not None and raw[question] != raw[extra]:
        raise BadRow(
            "has several columns that could be its question",
            f"{question!r} and {extra!r}",
            f'take one of them out, or ask both: [data] columns = {{ instruction = "{question}" }}',
        )


def _lost(parts: Parts, raw: Mapping[str, Any], column: str) -> BadRow:
    names = parts.columns.names
    prompt = next((name for name in names.get("prompt", ()) if name in parts.columns.taken), None)
    do = "write it into the prompt, or take the column out"
    if prompt is not None and isinstance(raw[prompt], str) and "question" in names:
        do += f'; with [data] columns = {{ question = "{prompt}" }} it goes before the question in the chat template'
    where = "the row's messages" if prompt is None else repr(prompt)
    return BadRow(f"has {column!r}, which would be left out", f"its prompt is {where}, and does not hold it", do)


def _stands(parts: Parts, raw: Mapping[str, Any], column: str) -> bool:
    """Tell whether all texts of a column stand in the row's prompt as well."""
    taken = parts.columns.taken
    found = [each for name in _ASKED for each in parts.columns.names.get(name, ()) if each in taken]
    found = found or [each for each in parts.columns.names.get("chosen", ()) if each in taken]
    said = "\n".join(text for each in found for text in _spoken(raw[each]))
    return all(text.strip() in said for text in _spoken(raw[column]) if not parts.speech.knows(text))


def _spoken(value: Any) -> list[str]:
    """Return all texts within a value, which may be JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    return list(_texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            yield from _texts(inner)
