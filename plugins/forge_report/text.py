"""Values as people read them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from forge_report.scale import short

NONE = "–"  # noqa: RUF001 - a dash, where a table has no value

LONGEST = 20_000
"""Letters of one text that are shown; a model that never stopped would make the page too large to open."""


class Moment(NamedTuple):
    """A time of the clock where the report is made, for people, and with the difference to UTC for programs."""

    shown: str
    exact: str


def value(found: Any) -> str:
    """Return a value of JSON for people."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if found is None:
        return NONE
    if isinstance(found, float):
        return short(found)
    if isinstance(found, int):
        return f"{found:,}"
    if isinstance(found, str):
        return found
    if isinstance(found, list) and all(isinstance(item, str | int | float) for item in found):
        return ", ".join(value(item) for item in found)
    if isinstance(found, dict) and all(isinstance(item, str | int | float | None) for item in found.values()):
        return ", ".join(f"{key}: {value(item)}" for key, item in found.items()) or NONE
    return json.dumps(found, ensure_ascii=False)


def facts(pairs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values for people; what is None or empty is left out."""
    empty: tuple[Any, ...] = (None, "", [], {})
    return [(name, value(found)) for name, found in pairs.items() if found not in empty]


def clock(seconds: float) -> str:
    """Return a duration: 4.2 s, 3:07 min, 2:05:00 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours}:{left:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def moment(seconds: float) -> Moment | None:
    """Return a time as it is told here, or None if this system knows no such time."""
    try:
        local = time.localtime(seconds)
    except (ValueError, OverflowError, OSError):
        return None
    return Moment(time.strftime("%Y-%m-%d %H:%M:%S", local), time.strftime("%Y-%m-%dT%H:%M:%S%z", local))


def cut(text: str) -> str:
    """Return a text, or its beginning with the number of letters that are left out."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]}\n… {more:,} more characters"
