"""Rows turned into forge's form without a tokenizer, as a source of a method has them."""

from __future__ import annotations

from typing import Any

from forge.api import Source
from forge_huggingface.data.conversion.formats import detect
from forge_huggingface.data.conversion.shape import Shape
from forge_huggingface.data.layouts import LAYOUTS
from forge_huggingface.methods import METHODS
from forge_huggingface.rows import Conversation, Row


def shaped(*rows: dict[str, Any], method: str = "sft", **keys: Any) -> Shape:
    """Return the shape of a source of these rows; ``keys`` are the source's."""
    formats = LAYOUTS[METHODS[method].layout].formats
    return detect(Source(path="x.jsonl", **keys), rows, "x.jsonl", formats, f'method = "{method}"')


def converted(*rows: dict[str, Any], **keys: Any) -> list[Row]:
    """Return rows of one source in forge's form."""
    shape = shaped(*rows, **keys)
    return [shape.convert(row) for row in rows]


def spoken(row: Row | Any) -> list[tuple[str, str]]:
    """Return who says what in a conversation."""
    assert isinstance(row, Conversation)
    return [(message["role"], message["content"]) for message in row.messages]


def says(**texts: str) -> list[dict[str, str]]:
    """Return messages, one for each role with its text, in order."""
    return [{"role": role, "content": text} for role, text in texts.items()]
