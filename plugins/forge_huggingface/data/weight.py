"""How much a row weighs in memory, and how deep it is nested: a few bytes of a file may stand for gigabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_huggingface.data.characters import halved_key
from forge_huggingface.rows import BadRow
from forge_huggingface.sources.texts import LARGEST, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from forge_huggingface.sources.texts import RawRow


DEEPEST = 100
"""How deep the values of a row may be nested: what walks through them takes a part of Python's stack for each level."""

BLOCK = 64 * 2**20
"""How much rows may weigh together that are worked on at once."""

_EACH = 8  # what a value weighs at the least


def blocks(rows: Iterator[tuple[str, RawRow]], count: int) -> Iterator[list[tuple[str, RawRow]]]:
    """Yield the rows in blocks of so many, or fewer where they are heavy; a row that none may be as a bad one."""
    block: list[tuple[str, RawRow]] = []
    total = 0
    for origin, raw in rows:
        row: RawRow = raw
        if not isinstance(raw, BadRow):
            try:
                total += weigh(raw)
            except BadRow as bad:
                row = bad
        block.append((origin, row))
        if len(block) >= count or total >= BLOCK:
            yield block
            block, total = [], 0
    if block:
        yield block


def weigh(row: dict[str, Any]) -> int:
    """Return about how many bytes a row takes. Raises :class:`BadRow` if it, or a key in it, can be none."""
    total = 0
    level: list[Any] = [row]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                total += sum(len(key) for key in value if isinstance(key, str))
                if (bad := halved_key(value)) is not None:
                    raise bad
                values = value.values()
            else:
                values = value
            total += _EACH * len(value)
            for each in values:
                if isinstance(each, str | bytes | bytearray):
                    total += len(each)
                elif isinstance(each, dict | list | tuple):
                    below.append(each)
        if total > LARGEST:
            raise too_large()
        if not below:
            return total
        level = below
    raise BadRow("is nested too deeply", f"more than {DEEPEST} levels", "write its inner values as text")
