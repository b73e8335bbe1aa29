"""What a TOML file can hold and a job cannot: numbers that no program takes, and tables without end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.job.locate import Key

DEEPEST = 32
"""How many tables and lists may lie in each other."""


def take_out_unfit(raw: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    """Take values out of a job's raw tables that are unfit whatever their keys mean, and yield the keys and why."""
    deep: set[str] = set()
    waiting: list[tuple[Key, Any]] = [((name,), raw) for name in raw]  # a path, and what holds its last key
    while waiting:
        key, around = waiting.pop()
        value = around[key[-1]]
        if isinstance(value, dict | list):
            if len(key) < DEEPEST:
                waiting += (((*key, name), value) for name in (value if isinstance(value, dict) else range(len(value))))
            elif value:
                deep.add(str(key[0]))
        elif isinstance(value, float) and not math.isfinite(value):
            around[key[-1]] = 0
            yield key, f"must be a finite number, not {value}"
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            around[key[-1]] = 0
            yield key, "is a number of more than 64 bits, which TOML does not have"
    for name in sorted(deep):
        raw[name] = {}
        yield (name,), f"holds tables or lists in each other, more than {DEEPEST} levels deep"
