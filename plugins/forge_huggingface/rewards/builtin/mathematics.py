"""What ``math-equal`` has done aside: math-verify reads and compares, and some of what it reads takes for ever."""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify


def readable(right: str) -> bool:
    """Whether a row's answer can be read."""
    return bool(_read(right))


def compare(right: str, text: str) -> tuple[bool, bool, bool]:
    """Return whether a row's answer can be read, whether the text's can, and whether they are equal."""
    gold = _read(right)
    found = _read(text) if gold else []
    # The limits of their own are signals, which do not reach what is written in C.
    return bool(gold), bool(found), bool(gold and found and verify(gold, found, timeout_seconds=None))


def _read(text: str) -> list[Any]:
    found: list[Any] = parse(text, fallback_mode="no_fallback", parsing_timeout=None)
    return found
