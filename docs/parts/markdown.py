"""Markdown from values: tables, code, and docstrings without their roles."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def row(*cells: str) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return "\n".join([row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows)])


def listed(words: Iterable[str]) -> str:
    """Return words as code, with commas."""
    return ", ".join(f"`{word}`" for word in words)


def code(value: Any) -> str:
    """Return a value as a job file writes it."""
    if value is None or str(value) == "PydanticUndefined":
        return ""
    if isinstance(value, float):
        return f"`{number(value)}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def number(value: float) -> str:
    """Return a number as people write it: no trailing .0, and an exponent only for small ones."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def sentence(text: str) -> str:
    """Return a docstring's first paragraph."""
    return plain(text.split("\n\n", maxsplit=1)[0])


def plain(text: str) -> str:
    """Return text of a docstring on one line, with names for roles and code as Markdown marks it."""
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())
