"""Texts with columns in braces, as ``row_template`` has them: ``"Question: {question}"``."""

from __future__ import annotations

import re

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Pieces = tuple[tuple[str, str | None], ...]
"""A text cut at its columns: what stands before each, and its name; None behind the last."""


def pieces_of(text: str) -> Pieces:
    """Cut a text at its columns. ``{{`` and ``}}`` are braces that stand for themselves.

    Raises:
        ValueError: A brace is open, or has no name in it.

    Example:
        >>> pieces_of("Q: {question} {{}}")
        (('Q: ', 'question'), (' {}', None))
    """
    pieces: list[tuple[str, str | None]] = []
    before, end = "", 0
    for found in _PIECE.finditer(text):
        before += text[end : found.start()]
        end = found.end()
        if found[0] in ("{{", "}}"):
            before += found[0][0]
        elif found[1] is None:
            raise ValueError(f"a {found[0]!r} at character {found.start() + 1} has no partner")
        elif not found[1].strip():
            raise ValueError(f"the braces at character {found.start() + 1} name no column")
        else:
            pieces.append((before, found[1]))
            before = ""
    return (*pieces, (before + text[end:], None))
