"""What a TOML file can hold and a job cannot: numbers that no program takes, tables without end, and logins."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from forge.masking import HIDDEN, masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.job.locate import Key

DEEPEST = 32
"""How many tables and lists may lie in each other."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
"""A value that is an address and nothing else; in a text, such as a prompt, one may be an example."""

_LOGIN = "leave it out; what asks there can take it from ~/.netrc or from a variable of the environment"


def take_out_unfit(raw: dict[str, Any]) -> Iterator[tuple[Key, str, str | None]]:
    """Take values out of a job's raw tables that are unfit whatever their keys mean.

    Yields:
        The key of each, why it is unfit, and what to do about it.
    """
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
        elif (
            isinstance(value, str)
            and (hidden := masked(value)) != value
            and (hidden == HIDDEN or _ADDRESS.fullmatch(value))
        ):
            around[key[-1]] = hidden
            yield key, "holds a login, and a job is copied into its run's folder and from there to others", _LOGIN
        elif isinstance(value, float) and not math.isfinite(value):
            around[key[-1]] = 0
            yield key, f"must be a finite number, not {value}", None
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            around[key[-1]] = 0
            yield key, "is a number of more than 64 bits, which TOML does not have", None
    for name in sorted(deep):
        raw[name] = {}
        yield (name,), f"holds tables or lists in each other, more than {DEEPEST} levels deep", None
