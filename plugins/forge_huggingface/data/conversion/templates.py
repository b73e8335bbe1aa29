"""What a job puts around the columns of a row: a template of the whole row, and a text before its question."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.conversion.columns import Columns, nothing
from forge_huggingface.rows import (
    BadRow,
    Completion,
    Conversation,
    Ids,
    Labelled,
    Message,
    Pair,
    Prompt,
    Rated,
    Row,
    Text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FORMATS = {
    frozenset({"text"}): "text",
    frozenset({"prompt"}): "prompt",
    frozenset({"prompt", "completion"}): "prompt-completion",
    frozenset({"user"}): "question",
    frozenset({"user", "assistant"}): "input-output",
}
_NAMES = {"question": {"user": "question"}, "input-output": {"user": "input", "assistant": "output"}}


class Wording:
    """The template of a row: ``[data] row_template``.

    Args:
        pieces: Its texts by name, cut at their columns.
        labelled: Whether a text is to have a label, which is taken from the row as it is.

    Attributes:
        format: The format of the rows that it makes.
        wanted: The columns that it names.
        columns: The columns of the source, and which of them it takes.
    """

    def __init__(self, pieces: Mapping[str, Sequence[tuple[str, str | None]]], *, labelled: bool = False) -> None:
        self.format = _FORMATS[frozenset(pieces) - {"system"}]
        if labelled and self.format == "text":
            self.format = "classification"
        names = _NAMES.get(self.format, {})
        self.pieces = {names.get(name, name): text for name, text in pieces.items()}
        self.wanted = tuple(dict.fromkeys(column for text in pieces.values() for _, column in text if column))
        read: dict[str, tuple[str, ...]] = {column: (column,) for column in self.wanted}
        if self.format == "classification":
            read["label"] = ("label", "labels")
        elif self.format not in ("text", "prompt", "question"):
            read["images"] = ("images", "image")
        self.columns = Columns({}, read)

    def fill(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of forge's own names.

        Raises:
            BadRow: A column has nothing that is a text or a number.
        """
        for column in self.columns.names:
            self.columns.find(raw, column)
        made = {
            name: "".join([before + _text(raw, column) for before, column in text])
            for name, text in self.pieces.items()
        }
        whole = (*self.columns.names.get("images", ()), *self.columns.names.get("label", ()))
        return made | {name: raw[name] for name in whole if name in raw}


def _text(raw: Mapping[str, Any], column: str | None) -> str:
    if column is None:
        return ""
    value = raw.get(column)
    if isinstance(value, str):
        return value
    if value is None:
        raise nothing(raw, column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(
            f"has no text in {column!r}",
            f"it is a {type(value).__name__}, and row_template does not say how to write one",
            "write it as a text in the file",
        )
    return str(value)


def prefixed(row: Row, prefix: str) -> Row:
    """Return a row whose question begins with a text.

    Raises:
        BadRow: It asks nothing.
    """
    if isinstance(row, Pair):
        chosen, rejected = (_asked(side, prefix) for side in (row.chosen, row.rejected))
        return replace(row, chosen=chosen, rejected=rejected)
    if isinstance(row, Rated):
        return replace(row, row=_asked(row.row, prefix))
    if isinstance(row, Prompt):
        asked = prefix + row.prompt if isinstance(row.prompt, str) else _first(row.prompt, prefix)
        return replace(row, prompt=asked)
    return row if isinstance(row, Text | Ids | Labelled) else _asked(row, prefix)


def _asked(row: Conversation | Completion, prefix: str) -> Conversation | Completion:
    if isinstance(row, Completion):
        return replace(row, prompt=prefix + row.prompt)
    return replace(row, messages=_first(row.messages, prefix))


def _first(messages: Sequence[Message], prefix: str) -> tuple[Message, ...]:
    """Return messages with a text before that of the first question, and behind its images."""
    for at, message in enumerate(messages):
        if message["role"] != "user":
            continue
        content = message["content"]
        if isinstance(content, str):
            content = prefix + content
        else:
            where = next((index for index, part in enumerate(content) if part["type"] == "text"), len(content))
            content = [*content[:where], {"type": "text", "text": prefix}, *content[where:]]
        return (*messages[:at], {**message, "content": content}, *messages[at + 1 :])
    raise BadRow("has no question", "prompt_prefix goes before one")
