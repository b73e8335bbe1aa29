"""Values as people read them, and the few shapes that most of a report is made of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forge_report.markup import NONE, Markup, escape, join, tag
from forge_report.scale import short

LONGEST = 20_000
"""Letters of one text that are shown; a model that never stopped would make the page too large to open."""


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


def clock(seconds: float) -> str:
    """Return a duration: 4.2 s, 3:07 min, 2:05:00 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours}:{left:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def moment(seconds: float) -> Markup:
    """Return a time of the clock where the report is made, with the difference to UTC in its attribute."""
    try:
        local = time.localtime(seconds)
    except (ValueError, OverflowError, OSError):  # no time that this system knows
        return tag("span", NONE)
    return tag("time", time.strftime("%Y-%m-%d %H:%M:%S", local), datetime=time.strftime("%Y-%m-%dT%H:%M:%S%z", local))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], class_: str = "") -> Markup:
    """Return a table whose first column names the rows; it scrolls by itself where the screen is narrow."""
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    return tag("div", tag("table", top, tag("tbody", *body), class_=class_ or None), class_="scroll")


def facts(pairs: Mapping[str, Any]) -> Markup:
    """Return names and values; what is None or empty is left out."""
    shown = [
        tag("div", tag("dt", name), tag("dd", found if isinstance(found, Markup) else value(found)))
        for name, found in pairs.items()
        if found is not None and found != "" and found != [] and found != {}
    ]
    return tag("dl", *shown, class_="facts")


def prose(text: str) -> Markup:
    """Return a sentence; what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape(text)
    return join(*(tag("code", part) if index % 2 else part for index, part in enumerate(parts)))


def block(text: str, class_: str | None = None) -> Markup:
    """Return a text as it is, with its lines; it can be reached by the keyboard, since it may scroll."""
    more = len(text) - LONGEST
    shown = text if more <= 0 else f"{text[:LONGEST]}\n… {more:,} more characters"
    return tag("pre", shown, class_=class_, tabindex="0", dir="auto")


def more(summary: object, *inside: object) -> Markup:
    """Return what is shown when it is asked for."""
    return tag("details", tag("summary", summary), *inside)
