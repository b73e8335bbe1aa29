"""Line charts as inline SVG, which need no script, no library and no network.

Letters keep their size on every screen: axes and labels are placed in percent of the drawing, and only the lines lie in
a box of their own that is stretched. A value can be read by pointing at it, since each strip of the chart has a title,
and without a mouse from the table below the chart.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from forge_report.markup import NONE, Markup, join, tag
from forge_report.record import Series
from forge_report.scale import Scale, linear, logarithmic, short, smooth, spread, thin

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
    told = any(line.window for line in drawn)
    return tag(
        "figure",
        tag("figcaption", tag("h3", chart.title), tag("span", chart.unit, class_="unit") if chart.unit else None),
        tag("div", *(line.key() for line in drawn), class_="legend") if len(drawn) > 1 or told else None,
        _plot(chart, drawn, logarithmic(values) if log else linear(values, zero=chart.zero))
        if drawn
        else tag("p", "There is no finite value to draw.", class_="empty"),
        *(tag("p", said, class_="bad") for line in lines if (said := _broken(line))),
        tag("p", chart.note, class_="note") if chart.note else None,
        _table(lines, chart.unit),
        class_="chart wide" if chart.wide else "chart",
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

    def key(self) -> Markup:
        sample = tag(
            "svg",
            tag("line", x1=0, x2=24, y1=5, y2=5, class_=f"line s{self.colour}"),
            class_="key",
            width=24,
            height=10,
            aria_hidden="true",
        )
        return tag("span", sample, self.label, tag("small", self.mean) if self.mean else None)

    def paths(self, across: Scale, up: Scale) -> list[Markup]:
        found = []
        if self.window:
            found.append(_path(*thin(self.series.x, self.series.y, BUCKETS), across, up, f"line faint s{self.colour}"))
        return [*found, _path(*thin(self.x, self.y, BUCKETS), across, up, f"line s{self.colour}")]

    def dots(self, across: Scale, up: Scale) -> list[Markup]:
        if min(len(self.x), len(self.finite)) > DOTS:
            return []
        return [
            tag(
                "circle",
                cx=_percent(across(self.x[index])),
                cy=_percent(1 - up(value)),
                r=2.5,
                class_=f"dot s{self.colour}",
            )
            for index, value in enumerate(self.y)
            if value == value and (len(self.x) <= DOTS or _alone(self.y, index))
        ]

    def at(self, begin: float, end: float) -> str | None:
        """Return the value in the middle of a strip as text, or None if there is none."""
        first, last = bisect_left(self.x, begin), bisect_left(self.x, end)
        if first == last:
            return None
        return f"{self.label} {short(self.y[(first + last) // 2])}"


def _plot(chart: Chart, drawn: list[_Drawn], up: Scale) -> Markup:
    steps = [line.x[end] for line in drawn for end in (0, -1)]
    across = linear(steps, whole=True)
    said = f"{chart.title}: " + "; ".join(_said(line) for line in drawn) + (" (logarithmic axis)" if up.log else "")
    grid = [
        join(
            tag("line", x1=0, x2="100%", y1=_percent(1 - up(tick)), y2=_percent(1 - up(tick)), class_="grid"),
            tag("text", label, x=-8, y=_percent(1 - up(tick)), dy="0.32em", class_="y"),
        )
        for tick, label in zip(up.ticks, up.labels(), strict=True)
    ]
    below = [
        tag("text", label, x=_percent(across(tick)), y="100%", dy="1.5em", class_="x")
        for tick, label in zip(across.ticks, across.labels(), strict=True)
    ]
    marks = [
        tag(
            "line",
            tag("title", text),
            x1=_percent(across(step)),
            x2=_percent(across(step)),
            y1=0,
            y2="100%",
            class_="mark",
        )
        for step, text in chart.marks
        if across.low <= step <= across.high
    ]
    lines = tag(
        "svg",
        *(path for line in drawn for path in line.paths(across, up)),
        viewBox=f"0 0 {BOX} {BOX}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
        class_="lines",
    )
    dots = [dot for line in drawn for dot in line.dots(across, up)]
    inside = join(*grid, *below, lines, *dots, *_strips(drawn, across), *marks)
    svg = tag("svg", inside, role="img", aria_label=said, width="100%", height="100%")
    return tag("div", svg, class_="plot")


def _strips(drawn: list[_Drawn], across: Scale) -> list[Markup]:
    """Return one transparent strip a step, or for many steps together, with their values as its title."""
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
            found.append(
                tag(
                    "rect",
                    tag("title", f"{name}: {', '.join(texts)}"),
                    x=_percent(across(begin)),
                    y=0,
                    width=_percent(across(end) - across(begin)),
                    height="100%",
                    class_="strip",
                )
            )
    return found


def _path(x: Sequence[int], y: Sequence[float], across: Scale, up: Scale, class_: str) -> Markup:
    parts, pen = [], "M"
    for step, value in zip(x, y, strict=True):
        if value != value:
            pen = "M"
            continue
        parts.append(f"{pen}{across(step) * BOX:.4g} {(1 - up(value)) * BOX:.4g}")
        pen = "L"
    return tag("path", d="".join(parts), class_=class_)


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


def _table(lines: Sequence[Line], unit: str) -> Markup:
    """Return some of the values as a table: at the steps of the line with the fewest points, which the others share."""
    steps = min((line.series.x for line in lines), key=len)
    steps = sorted({lines[0].series.x[0], *steps, lines[0].series.x[-1]})
    if len(steps) > ROWS:
        steps = [steps[round(index * (len(steps) - 1) / (ROWS - 1))] for index in range(ROWS)]
    head = tag("tr", tag("th", "step", scope="col"), *(tag("th", line.label, scope="col") for line in lines))
    rows = [
        tag("tr", tag("th", step, scope="row"), *(tag("td", _at(line.series, step)) for line in lines))
        for step in steps
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="numbers")
    return tag("details", tag("summary", f"Numbers{f' in {unit}' if unit else ''}"), tag("div", table, class_="scroll"))


def _at(series: Series, step: int) -> str:
    index = bisect_left(series.x, step)
    return short(series.y[index]) if index < len(series.x) and series.x[index] == step else NONE


def _percent(share: float) -> str:
    return f"{share * 100:.4g}%"
