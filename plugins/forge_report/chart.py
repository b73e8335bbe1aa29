"""Line charts as inline SVG, which need no script, no library and no network.

What is drawn where is said here, and ``chart.html.jinja`` writes it down. Letters keep their size on every screen: axes
and labels are placed in percent of the drawing, and only the lines lie in a box of their own that is stretched. A value
can be read by pointing at it, since each strip of the chart has a title, and without a mouse from the table below the
chart.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from forge_report.markup import fill
from forge_report.record import Series
from forge_report.scale import Scale, linear, logarithmic, short, smooth, spread, thin
from forge_report.text import NONE

if TYPE_CHECKING:
    from markupsafe import Markup

BUCKETS = 360
"""Parts that a long line is cut into: more than a screen shows of a chart."""

STRIPS = 90
"""Strips that have a title of their own."""

DOTS = 30
"""A line of at most so many points shows each of them."""

NOISY = 40
"""A line of at least so many points is smoothed, over a fortieth of them at each side."""

ROWS = 12
BOX = 1000
COLOURS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name, its values, and whether it is noisy where it is long."""

    label: str
    series: Series
    noisy: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over steps.

    Attributes:
        title: What is shown.
        lines: The lines; those without a finite value are not drawn, and that is said.
        unit: What the values are counted in.
        zero: Whether the axis of values begins at 0.
        marks: Steps to mark by a vertical line, with what happened there.
        note: A sentence on how to read it.
        wide: Whether the chart gets the whole width of the page.
    """

    title: str
    lines: Sequence[Line]
    unit: str = ""
    zero: bool = False
    marks: Sequence[tuple[int, str]] = field(default_factory=tuple)
    note: str = ""
    wide: bool = False


def draw(chart: Chart) -> Markup | None:
    """Return a chart as a figure, or None if no line has a point."""
    lines = [line for line in chart.lines if line.series.x]
    if not lines:
        return None
    values = [value for line in lines for value in line.series.finite()]
    log = not chart.zero and spread(values)
    drawn = [_Drawn(line, index % COLOURS, log=log) for index, line in enumerate(lines) if line.series.finite()]
    return fill(
        "chart",
        title=chart.title,
        unit=chart.unit,
        wide=chart.wide,
        note=chart.note,
        lines=drawn,
        legend=len(drawn) > 1 or any(line.window for line in drawn),
        plot=_plot(chart, drawn, logarithmic(values) if log else linear(values, zero=chart.zero)) if drawn else None,
        broken=[said for line in lines if (said := _broken(line))],
        head=[line.label for line in lines],
        rows=_rows(lines),
    )


class _Drawn:
    """A line with what is drawn of it."""

    def __init__(self, line: Line, colour: int, *, log: bool) -> None:
        series = line.series
        self.label, self.series, self.colour = line.label, series, colour
        self.x, self.y = series.x, series.y
        self.window = len(series.x) // 40 * 2 + 1 if line.noisy and len(series.x) >= NOISY else 0
        if self.window:
            last = len(series.x) - 1
            at = sorted({index * last // (2 * BUCKETS) for index in range(2 * BUCKETS + 1)})
            self.x, self.y = [series.x[index] for index in at], smooth(series.y, self.window, at, log=log)
        self.finite = series.finite()
        self.mean = f", {'geometric ' if log else ''}mean of {self.window:,}" if self.window else ""

    def paths(self, across: Scale, up: Scale) -> list[tuple[str, str]]:
        """Return classes and what is drawn of them: the values faintly below their mean, or the values alone."""
        found = [(f"s{self.colour}", _path(*thin(self.x, self.y, BUCKETS), across, up))]
        if self.window:
            values = _path(*thin(self.series.x, self.series.y, BUCKETS), across, up)
            found.insert(0, (f"faint s{self.colour}", values))
        return found

    def dots(self, across: Scale, up: Scale) -> list[tuple[str, str, int]]:
        """Return the values that are shown each by itself: where, and in which colour."""
        if min(len(self.x), len(self.finite)) > DOTS:
            return []
        return [
            (_percent(across(self.x[index])), _percent(1 - up(value)), self.colour)
            for index, value in enumerate(self.y)
            if value == value and (len(self.x) <= DOTS or _alone(self.y, index))
        ]

    def at(self, begin: float, end: float) -> str | None:
        """Return the value in the middle of a strip as text, or None if there is none."""
        first, last = bisect_left(self.x, begin), bisect_left(self.x, end)
        if first == last:
            return None
        return f"{self.label} {short(self.y[(first + last) // 2])}"


def _plot(chart: Chart, drawn: list[_Drawn], up: Scale) -> dict[str, Any]:
    """Return what lies in the box between the axes; all places but those on lines are shares of its size."""
    across = linear([line.x[end] for line in drawn for end in (0, -1)], whole=True)
    said = f"{chart.title}: " + "; ".join(_said(line) for line in drawn) + (" (logarithmic axis)" if up.log else "")
    return {
        "said": said,
        "box": BOX,
        "up": [(_percent(1 - up(tick)), label) for tick, label in zip(up.ticks, up.labels(), strict=True)],
        "across": [(_percent(across(tick)), label) for tick, label in zip(across.ticks, across.labels(), strict=True)],
        "paths": [path for line in drawn for path in line.paths(across, up)],
        "dots": [dot for line in drawn for dot in line.dots(across, up)],
        "strips": _strips(drawn, across),
        "marks": [(_percent(across(step)), text) for step, text in chart.marks if across.low <= step <= across.high],
    }


def _strips(drawn: list[_Drawn], across: Scale) -> list[tuple[str, str, str]]:
    """Return one transparent strip a step, or for many steps together: where it begins, how wide it is, its values."""
    steps = sorted({step for line in drawn for step in line.x}) if max(len(line.x) for line in drawn) <= STRIPS else []
    if 1 < len(steps) <= STRIPS:
        middles = [(before + after) / 2 for before, after in pairwise(steps)]
        edges = [across.low, *middles, across.high]
        names = [f"step {step}" for step in steps]
    else:
        width = (across.high - across.low) / STRIPS
        edges = [across.low + index * width for index in range(STRIPS + 1)]
        names = [f"about step {(begin + end) / 2:.0f}" for begin, end in pairwise(edges)]
    found = []
    for index, name in enumerate(names):
        begin, end = edges[index], edges[index + 1]
        last = math.inf if index == len(names) - 1 else end
        if texts := [text for line in drawn if (text := line.at(begin, last))]:
            wide = _percent(across(end) - across(begin))
            found.append((_percent(across(begin)), wide, f"{name}: {', '.join(texts)}"))
    return found


def _path(x: Sequence[int], y: Sequence[float], across: Scale, up: Scale) -> str:
    parts, pen = [], "M"
    for step, value in zip(x, y, strict=True):
        if value != value:
            pen = "M"
            continue
        parts.append(f"{pen}{across(step) * BOX:.4g} {(1 - up(value)) * BOX:.4g}")
        pen = "L"
    return "".join(parts)


def _alone(values: Sequence[float], index: int) -> bool:
    """Whether a value has no neighbour to draw a line to."""
    return not any(0 <= near < len(values) and values[near] == values[near] for near in (index - 1, index + 1))


def _said(line: _Drawn) -> str:
    first, last = (next(value for value in values if value == value) for values in (line.y, line.y[::-1]))
    ends = f"from {short(first)} at step {line.x[0]} to {short(last)} at step {line.x[-1]}"
    return f"{line.label} {ends}, lowest {short(min(line.finite))}, highest {short(max(line.finite))}"


def _broken(line: Line) -> str | None:
    """Say where values are missing because they were NaN or infinite."""
    wrong = [step for step, value in zip(line.series.x, line.series.y, strict=True) if value != value]
    if not wrong:
        return None
    where = ", ".join(str(step) for step in wrong[:5]) + (" and later" if len(wrong) > 5 else "")
    return f"{line.label} was not finite at {len(wrong)} of {len(line.series.x)} logged steps: {where}."


def _rows(lines: Sequence[Line]) -> list[tuple[int, list[str]]]:
    """Return some of the values: at the steps of the line with the fewest points, which the others share."""
    steps = min((line.series.x for line in lines), key=len)
    steps = sorted({lines[0].series.x[0], *steps, lines[0].series.x[-1]})
    if len(steps) > ROWS:
        steps = [steps[round(index * (len(steps) - 1) / (ROWS - 1))] for index in range(ROWS)]
    return [(step, [_at(line.series, step) for line in lines]) for step in steps]


def _at(series: Series, step: int) -> str:
    index = bisect_left(series.x, step)
    return short(series.y[index]) if index < len(series.x) and series.x[index] == step else NONE


def _percent(share: float) -> str:
    return f"{share * 100:.4g}%"
