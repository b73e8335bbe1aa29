"""The page: what a reader wants to know first comes first.

Did it learn, is it healthy, what was run, how is it repeated. The verdict and the figures stand at the top, then
answers before and after, then the curves, and then everything that was decided and that happened. How it looks is said
by the templates in ``templates/``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import forge
from forge.api import DiskFull, MachineError, RunError
from forge.disk.files import write_text
from forge_report import outcome, sections
from forge_report.chart import draw
from forge_report.curves import charts
from forge_report.markup import fill
from forge_report.record import read_record
from forge_report.summary import about, summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from markupsafe import Markup

    from forge.disk.folder import RunFolder
    from forge_report.record import Record


NAME = "report.html"

LEVELS = {"trained": "good", "failed": "bad", "stopped": "warn"}
"""States of a run that have a colour."""


class Part(NamedTuple):
    """A part of the page that has a heading.

    Attributes:
        name: What links to it say.
        heading: Its heading.
        template: The template that shows it.
        told: Returns what the template asks for, or None where the part is left out.
    """

    name: str
    heading: str
    template: str
    told: Callable[[Record], dict[str, Any] | None]


def curves(record: Record) -> dict[str, Any] | None:
    """Return the charts that everybody wants, and those of all other logged values."""
    online = any(name in record.steps for name in ("reward", "completions/mean_length"))
    main, others = ([figure for chart in found if (figure := draw(chart))] for found in charts(record, online=online))
    return {"main": main, "others": others} if main or others else None


PARTS = (
    Part("metrics", "Metrics", "metrics", outcome.metrics),
    Part("samples", "Before and after", "samples", outcome.samples),
    Part("curves", "Curves", "curves", curves),
    Part("answers", "Answers while training", "samples", outcome.answers),
    Part("plan", "Plan", "plan", sections.plan),
    Part("data", "Data", "data", sections.data),
    Part("memory", "Memory and disk", "memory", sections.memory),
    Part("speed", "Time and speed", "speed", sections.speed),
    Part("machine", "Model and machine", "machine", sections.machine),
    Part("history", "History", "history", sections.history),
    Part("exports", "Exports", "exports", sections.exports),
    Part("repeat", "Repeat it", "repeat", sections.repeat),
)


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
    except DiskFull:
        raise
    except (OSError, MachineError) as error:
        do = "name another file: --html FILE, or --out FILE of `forge report`"
        why = error.why if isinstance(error, MachineError) else str(error)
        raise RunError(f"cannot write {path}", why, do) from error
    return path


def render(record: Record) -> str:
    """Return the page of a run as HTML."""
    bodies = [(part, _shown(part.template, part.told, record)) for part in PARTS]
    page = fill(
        "page",
        name=record.name,
        state=record.state,
        level=LEVELS.get(record.state, "plain"),
        about=_shown("about", about, record),
        summary=_shown("summary", summary, record),
        parts=[{"name": part.name, "heading": part.heading, "body": body} for part, body in bodies if body],
        version=forge.__version__,
        now=time.time(),
        path=record.path,
    )
    return str(page)  # of a Markup, every text that is added to it would be escaped


def _shown(template: str, told: Callable[[Record], dict[str, Any] | None], record: Record) -> Markup | None:
    """Return a part of the page, or a sentence in its place if the run's files are not what this forge writes."""
    try:
        values = told(record)
        return None if values is None else fill(template, **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return fill("broken", version=forge.__version__, error=f"{type(error).__name__}: {error}")
