"""The page: what a reader wants to know first comes first.

Did it learn, is it healthy, what was run, how is it repeated. The verdict and the figures stand at the top, then
answers before and after, then the curves, and then everything that was decided and that happened.
"""

from __future__ import annotations

import time
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import forge
from forge.api import RunError
from forge.disk.files import write_text
from forge.text.units import amount, size
from forge_report import outcome, sections
from forge_report.chart import draw
from forge_report.curves import charts, losses
from forge_report.markup import Markup, escape, join, tag
from forge_report.record import read_record
from forge_report.scale import short
from forge_report.text import clock, moment, more, prose
from forge_report.verdict import Finding, ends, healthy, learned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from forge.disk.folder import RunFolder
    from forge_report.record import Record


NAME = "report.html"

_SIGNS = {"good": ("✓", "good"), "plain": ("·", "note"), "warn": ("!", "warning"), "bad": ("✕", "problem")}


def write_report(folder: RunFolder, path: Path | None = None) -> Path:
    """Write the page of a run and return where it is: ``report.html`` in its folder unless another file is named.

    Raises:
        RunError: The file cannot be written there.
        DiskFull: There is no space left.
    """
    path = path or folder.path / NAME
    if path.is_dir():
        path /= NAME
    page = render(read_record(folder))
    try:
        write_text(path, page)
    except OSError as error:
        raise RunError(f"cannot write {path}", str(error), "name another file: --html FILE") from error
    return path


def render(record: Record) -> str:
    """Return the page of a run as HTML."""
    here = files("forge_report")
    title = f"{record.name} - forge"
    found = [(name, heading, part) for name, heading, part in _parts(record) if part]
    contents = tag(
        "nav",
        tag("ul", *(tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in found)),
        aria_label="Contents",
    )
    parts = [
        tag("section", tag("h2", heading, id=f"{name}-title"), part, id=name, aria_labelledby=f"{name}-title")
        for name, heading, part in found
    ]
    by, where = f"Made by forge {forge.__version__} on ", tag("code", str(record.path))
    made = tag("footer", tag("p", by, moment(time.time()), " from ", where, "."))
    template = Template((here / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        style=(here / "page.css").read_text(encoding="utf-8"),
        body=join(_header(record), tag("main", _shown(_summary, record), contents, *parts), made),
    )


def _parts(record: Record) -> Iterator[tuple[str, str, Markup | None]]:
    parts: tuple[tuple[str, str, Callable[[Record], Markup | None]], ...] = (
        ("metrics", "Metrics", outcome.metrics),
        ("samples", "Before and after", lambda record: _group(outcome.samples(record))),
        ("curves", "Curves", _curves),
        ("answers", "Answers while training", lambda record: _group(outcome.answers(record))),
        ("plan", "Plan", sections.plan),
        ("data", "Data", sections.data),
        ("memory", "Memory and disk", sections.memory),
        ("machine", "Model and machine", sections.machine),
        ("history", "History", sections.history),
        ("exports", "Exports", sections.exports),
        ("repeat", "Repeat it", sections.repeat),
    )
    for name, heading, make in parts:
        yield name, heading, _shown(make, record)


def _shown(make: Callable[[Record], Markup | None], record: Record) -> Markup | None:
    """Return a part of the page, or a sentence in its place if the run's files are not what this forge writes."""
    try:
        return make(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"This part cannot be shown, for a file of the run is not as forge {forge.__version__} writes it: "
        return tag("p", why, tag("code", f"{type(error).__name__}: {error}"), class_="bad")


def _curves(record: Record) -> Markup | None:
    online = any(name in record.steps for name in ("reward", "completions/mean_length"))
    main, others = ([figure for chart in found if (figure := draw(chart))] for found in charts(record, online=online))
    rest = more(f"{len(others)} other logged values", tag("div", *others, class_="charts")) if others else None
    return tag("div", tag("div", *main, class_="charts"), rest) if main or others else None


def _group(children: list[Markup]) -> Markup | None:
    return tag("div", *children) if children else None


def _header(record: Record) -> Markup:
    plan = record.plan
    job = plan.get("job") or {}
    method, adapter = (job.get("train") or {}).get("method"), (job.get("adapter") or {}).get("type")
    device = (record.last.get("loaded") or {}).get("device")
    words = [
        (plan.get("facts") or {}).get("id") or (job.get("model") or {}).get("id"),
        method,
        "every weight" if adapter == "none" else adapter,
        f"on {device}" if device else None,
    ]
    began = tag("span", "began ", moment(record.sessions[0].began)) if record.sessions else None
    parts = [part for part in (*words, began) if part]
    line = [item for part in parts for item in (" · ", part)][1:]
    return tag(
        "header",
        tag("h1", record.name, " ", tag("span", record.state, class_=f"state {_class(record.state)}")),
        tag("p", *line),
    )


def _class(state: str) -> str:
    return {"trained": "good", "failed": "bad", "stopped": "warn"}.get(state, "plain")


def _summary(record: Record) -> Markup:
    return tag(
        "section",
        tag("dl", *_tiles(record), class_="tiles"),
        tag(
            "div",
            _findings("Did it learn?", learned(record)),
            _findings("Is it healthy?", healthy(record)),
            class_="verdicts",
        ),
        aria_label="Summary",
        id="summary",
    )


def _findings(question: str, found: list[Finding]) -> Markup:
    lines = []
    for finding in found:
        sign, word = _SIGNS[finding.level]
        mark = tag("span", sign, class_="sign", role="img", aria_label=word)
        lines.append(tag("li", mark, tag("span", prose(finding.text)), class_=finding.level))
    return tag("div", tag("h2", question), tag("ul", *lines, class_="findings"))


def _tiles(record: Record) -> Iterator[Markup]:
    """Yield the figures that are asked for first; a run that has not come so far has fewer."""
    for each in list(outcome.comparisons(record))[:3]:
        figure = " → ".join(each.told(found) for found in each.values.values())
        yield _tile(each.metric, figure, f"held-out rows, {' → '.join(each.values)}")
    online = "reward" in record.steps
    for name, held_out in () if online else losses(record):
        if values := held_out.finite():
            before = f"was {short(values[0])} at" if len(values) > 1 else "at"
            step = held_out.x[0] if len(values) > 1 else held_out.x[-1]
            yield _tile(f"held-out loss{f' ({name})' if name else ''}", short(values[-1]), f"{before} step {step:,}")
    series = record.steps.get("reward" if online else "loss")
    if series and series.finite():
        first, last, count = ends(series)
        how = f"means of {count:,} logged steps" if count > 1 else f"at step {series.x[0]:,}"
        yield _tile("reward" if online else "training loss", short(last), f"was {short(first)}, {how}")
    if record.of is not None:
        yield _tile("steps", f"{record.step or 0:,}", f"of {record.of:,}")
    if seconds := sum(each.ended - each.began for each in record.sessions if each.task == "training"):
        attempts = sum(each.task == "training" for each in record.sessions)
        more_ = f", {attempts} attempts" if attempts > 1 else ""
        yield _tile("time", clock(seconds), f"reading, loading, training{more_}")
    pace = record.steps.get("tokens_per_second")
    if pace and (values := sorted(pace.finite())):
        yield _tile("tokens a second", f"{values[len(values) // 2]:,.0f}", "median of the logged steps")
    if record.memory:
        yield _tile("memory", size(record.memory), "highest seen")
    summary: dict[str, Any] = (record.data or {}).get("summary") or {}
    if isinstance(summary.get("rows"), int):
        yield _tile("rows", f"{summary['rows']:,}", f"{amount(summary.get('tokens'))} tokens")
    dry = record.last.get("dry-run") or {}
    if estimate := (dry.get("steps") or 0) * (dry.get("seconds_per_step") or 0):
        yield _tile("training would take", clock(estimate), f"at most: {dry['steps']:,} times the longest batch")


def _tile(name: str, figure: str, more_: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", tag("strong", figure), tag("small", more_) if more_ else None))
