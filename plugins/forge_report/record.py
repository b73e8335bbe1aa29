"""What a run folder says about a run, read without trusting it.

A report is wanted most for a run that went wrong, so nothing here needs a run that is whole: a file that is missing is
None, one that is damaged is named in :attr:`Record.unread`, and the rest is shown. Plans are read as JSON and not as
:class:`~forge.api.plan.Plan`, so that a run of another version of forge can be shown too.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import RunError, upgraded_plan
from forge.disk.checkpoints import MARK, checkpoints
from forge.text.speed import Times

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from forge.disk.folder import RunFolder


SAMPLES = 24
"""How many of the answers that a run logged are kept: the first and the last half of them."""

_TASKS = {"collate": "training", "evaluate": "evaluation", "export": "export"}
_LARGEST = 1e300
_COUNTED = frozenset({"step", "progress", "eval", "checkpoint"})
_NO_SERIES = frozenset({"time", "kind", "step", "of", "seconds_left", "epoch", "num_tokens"})


@dataclass(slots=True)
class Series:
    """One logged value over the steps; what was not finite is NaN."""

    x: list[int] = field(default_factory=list)
    y: list[float] = field(default_factory=list)

    def cut(self, step: int) -> None:
        """Forget what lies after a step, since a resumed run trains it again."""
        keep = bisect_right(self.x, step)
        del self.x[keep:], self.y[keep:]

    def finite(self) -> list[float]:
        """Return the values that are numbers."""
        return [value for value in self.y if value == value]  # NaN is the only value that is not itself


@dataclass(slots=True)
class Session:
    """What one worker did.

    Attributes:
        task: ``"training"``, ``"evaluation"`` or ``"export"``.
        began: When, in seconds since the epoch.
        ended: When its last event was.
        end: ``"done"``, ``"failed"``, ``"stopped"``, ``"running"``, or ``"no word"`` of a worker that was killed.
        message: What was said at the end.
        start: The step that training began at; None where it never began.
        step: The last step that was trained.
        stages: Seconds by stage.
    """

    task: str
    began: float
    ended: float
    end: str = "no word"
    message: str = ""
    start: int | None = None
    step: int | None = None
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """A run as its folder tells it.

    Attributes:
        name: ``name/time``, as ``forge runs`` lists it.
        path: The folder.
        state: One word, as of :meth:`~forge.disk.folder.RunFolder.state`.
        plans: The plan of each attempt as JSON; None for one that cannot be read.
        lock: The text of ``job.lock.toml``.
        data: ``data.json``.
        trained: ``trained.json``.
        evaluation: ``evaluation.json``, as :class:`forge.api.Evaluated` describes it.
        evaluations: Later evaluations, by the names of their files in ``evaluations/``.
        exports: ``export.json`` of each export, by the folder's name; None for one that was not finished.
        checkpoints: The checkpoints on disk: name, step, size in bytes, and whether each is marked as whole.
        unread: Files that are there and cannot be read, each with the reason.
        sessions: What each worker did.
        steps: What was logged while training, by name. Steps that were trained again after a resume count once.
        evals: What was measured on held-out rows, by name without ``eval_``.
        of: The number of steps that the run is to have.
        resumes: The steps that training went on from.
        again: How many logged steps were trained again after a resume.
        saved: ``(step, bytes, seconds)`` of each checkpoint that was written.
        happened: Warnings, notes, failures and stops, as events.
        last: The last event of each kind.
        memory: The highest memory seen, in bytes.
        samples: Answers that were logged while training.
        times: What the last training's time went into.
    """

    name: str
    path: Path
    state: str
    plans: list[dict[str, Any] | None] = field(default_factory=list)
    lock: str | None = None
    data: dict[str, Any] | None = None
    trained: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    exports: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    checkpoints: list[tuple[str, int, bool]] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    steps: dict[str, Series] = field(default_factory=dict)
    evals: dict[str, Series] = field(default_factory=dict)
    of: int | None = None
    resumes: list[int] = field(default_factory=list)
    again: int = 0
    saved: list[tuple[int, int, float]] = field(default_factory=list)
    happened: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: int | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    times: Times = field(default_factory=Times)

    @property
    def plan(self) -> dict[str, Any]:
        """The newest plan that can be read, or an empty one."""
        return next((plan for plan in reversed(self.plans) if plan), {})

    @property
    def step(self) -> int | None:
        """The last step that was logged."""
        found = [session.step for session in self.sessions if session.step is not None]
        return found[-1] if found else None


def read_record(folder: RunFolder) -> Record:
    """Read a run folder. Never raises for what a run left unfinished or damaged."""
    path = folder.path.resolve()
    try:
        state = folder.state()
    except (RunError, ValueError, KeyError, TypeError):  # of another forge, or damaged: told where the files are shown
        state = "unknown"
    record = Record(name=f"{path.parent.name}/{path.name}", path=path, state=state)
    record.plans = [_plan(record, file) for file in folder.plan_paths()]
    for name in ("data", "trained", "evaluation"):
        setattr(record, name, _json(record, path / f"{name}.json"))
    record.lock = _text(record, path / "job.lock.toml") or _text(record, path / "job.toml")
    for file in sorted(path.glob("evaluations/*.json")):
        if found := _json(record, file):
            record.evaluations[file.stem] = found
    for out in sorted(path.glob("exports/*/")):
        record.exports[out.name] = _json(record, out / "export.json")
    for kept in checkpoints(folder.checkpoints):
        total = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
        record.checkpoints.append((kept.name, total, (kept / MARK).exists()))
    log = _Log(record)
    for event in _events(folder.events):
        try:
            log.take(event)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            record.unread[folder.events.name] = f"an event of the kind {event.get('kind')!r:.40} is damaged: {error}"
    log.close()
    if record.state == "unknown" and record.trained:
        record.state = "trained"
    return record


def _plan(record: Record, path: Path) -> dict[str, Any] | None:
    """Return a plan as JSON data of today's form, or as it is where it has none that is known."""
    plan = _json(record, path)
    try:
        return upgraded_plan(plan) if plan else None
    except (RunError, KeyError, TypeError, AttributeError):
        return plan


class _Log:
    """Sorts events into a record. A long run has 100,000 steps, so steps come first and do little."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.open: Session | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Take the next event."""
        record, kind = self.record, event.get("kind")
        if isinstance(time := event.get("time"), int | float) and self.open is not None:
            self.open.ended = time
        if kind in _COUNTED:
            step = event.get("step")
            if step.__class__ is not int:
                return
            if kind == "step":
                _append(record.steps, event, step)
            elif kind == "eval":
                values = {name[5:]: value for name, value in event.items() if name.startswith("eval_")}
                _append(record.evals, {name: values[name] for name in values if name not in _RUNTIME}, step)
            elif kind == "checkpoint":
                record.saved.append((step, int(event.get("bytes") or 0), float(event.get("seconds") or 0)))
            if kind != "eval" and self.open is not None:
                self.open.step = step
        else:
            record.last[str(kind)] = event
            record.times.take(event)
            if kind in {"warning", "note", "failed", "stopped"}:
                record.happened.append(event)
            if handle := getattr(self, f"on_{kind}", None):
                handle(event)
        memory = event.get("memory")
        if memory.__class__ in {int, float} and memory > (record.memory or 0):
            record.memory = int(memory)

    def on_stage(self, event: Mapping[str, Any]) -> None:
        """Begin a session with a worker's first stage, and note how long each took."""
        if event.get("state") == "started":
            task = _TASKS.get(str(event.get("stage")))
            if task or self.open is None:  # a worker that was killed has left its session open
                self._begin(task or "evaluation", event)
        elif event.get("state") == "finished" and self.open is not None:
            self.open.stages[str(event.get("stage"))] = float(event.get("seconds") or 0)

    def on_training(self, event: Mapping[str, Any]) -> None:
        """Forget the steps that are trained again."""
        start = event.get("from") if isinstance(event.get("from"), int) else 0
        assert isinstance(start, int)
        record = self.record
        if isinstance(event.get("steps"), int):
            record.of = event["steps"]
        if self.open is not None:
            self.open.start = self.open.step = start
        before = max((len(series.x) for series in record.steps.values()), default=0)
        for series in (*record.steps.values(), *record.evals.values()):
            series.cut(start)
        record.again += before - max((len(series.x) for series in record.steps.values()), default=0)
        if start:
            record.resumes.append(start)

    def on_answers(self, event: Mapping[str, Any]) -> None:
        """Keep the first and the last answers of an online training."""
        rows = event.get("answers")
        kept, half = self.record.samples, SAMPLES // 2
        kept += [{"step": event.get("step"), **row} for row in rows or [] if isinstance(row, dict)]
        if len(kept) > SAMPLES:
            del kept[half:-half]

    def on_done(self, event: Mapping[str, Any]) -> None:
        """End a session."""
        self._end("done", "", event)

    def on_failed(self, event: Mapping[str, Any]) -> None:
        """End a session; a worker can fail before its first stage."""
        if self.open is None:
            self._begin("training", event)
        self._end("failed", told(event), event)

    def on_stopped(self, event: Mapping[str, Any]) -> None:
        """End a session that was asked to stop."""
        if self.open is None:
            self._begin("training", event)
        self._end("stopped", told(event), event)

    def close(self) -> None:
        """Come to the end of the file: a session that is open still runs, or was killed."""
        if self.open is not None and self.record.state == "running":
            self.open.end = "running"

    def _begin(self, task: str, event: Mapping[str, Any]) -> None:
        time = float(event.get("time") or 0)
        self.open = Session(task, time, time)
        self.record.sessions.append(self.open)

    def _end(self, end: str, message: str, event: Mapping[str, Any]) -> None:
        if self.open is not None:
            self.open.end, self.open.message = end, message
            self.open.ended = float(event.get("time") or self.open.ended)
        self.open = None


def told(event: Mapping[str, Any]) -> str:
    """Return what a warning, note, failure or stop says: ``what: why; what to do``."""
    error = event.get("error")
    parts = error if isinstance(error, dict) else {"what": event.get("message"), "do": event.get("do")}
    text = str(parts.get("what") or event.get("kind"))
    text += f": {parts['why']}" if parts.get("why") else ""
    return text + (f"; {parts['do']}" if parts.get("do") else "")


_RUNTIME = frozenset({"runtime", "samples_per_second", "steps_per_second", "num_tokens", "model_preparation_time"})


def _append(into: dict[str, Series], values: Mapping[str, Any], step: int) -> None:
    for name, value in values.items():
        if name in _NO_SERIES:
            continue
        kind = value.__class__
        if kind is float or kind is int:
            number = float(value) if -_LARGEST < value < _LARGEST else math.nan  # what is larger cannot be drawn either
        elif value is None:  # the log of events writes null for what is not finite
            number = math.nan
        else:
            continue
        series = into.get(name)
        if series is None:
            series = into[name] = Series()
        elif series.x and step <= series.x[-1]:  # logged twice: the later word counts
            series.cut(step - 1)
        series.x.append(step)
        series.y.append(number)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines as :func:`forge.disk.events.read_events` does, in two thirds of the time: a long run has many."""
    decode = json.JSONDecoder().raw_decode
    for line in path.read_bytes().decode(errors="replace").split("\n") if path.exists() else ():
        try:
            event, _ = decode(line)
        except (ValueError, RecursionError):  # an empty line, or half of one from a killed worker
            continue
        if event.__class__ is dict:
            yield event


def _text(record: Record, path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        record.unread[path.relative_to(record.path).as_posix()] = str(error)
        return None


def _json(record: Record, path: Path) -> dict[str, Any] | None:
    text = _text(record, path.resolve())
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        record.unread[path.resolve().relative_to(record.path).as_posix()] = f"it is damaged: {error}"
        return None
    return data if isinstance(data, dict) else None
