"""What there is to see: all runs and the queue, read from their files now and then, and what has changed since."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError
from forge.disk.folder import RunFolder
from forge_serve.queue.entry import GOING, WAITING
from forge_serve.queue.shelf import listing

if TYPE_CHECKING:
    from pathlib import Path

    from forge_serve.queue.shelf import Shelf

TAIL = 2**18
"""Bytes of events that are read of a run that is seen for the first time: what it came to stands at the end."""


@dataclass(slots=True)
class View:
    """A run as lists show it, kept up to date by reading what its events have grown by."""

    folder: RunFolder
    id: str
    key: tuple[Any, ...] = ()
    position: int = 0
    rest: bytes = b""
    state: str = "planned"
    seen: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None

    def update(self) -> None:
        """Look at the files again; what has not changed is not read."""
        path = self.folder.path
        key = tuple(_stamp(path / name) for name in ("events.jsonl", ".lock", "trained.json", "plan.json", ""))
        if key == self.key and self.state != "running":
            return
        self.key = key
        self.read()
        try:
            self.state = self.folder.state()
        except (ForgeError, OSError, ValueError, KeyError, TypeError):
            self.state = "unknown"

    def read(self) -> None:
        """Take the events that have been written since the last look."""
        try:
            with self.folder.events.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self.position:
                    self.position, self.rest = 0, b""
                if self.position == 0 and size > TAIL:
                    self.position = size - TAIL
                    file.seek(self.position)
                    self.position += len(file.readline())
                file.seek(self.position)
                while piece := file.read(2**20):
                    self.position += len(piece)
                    *lines, self.rest = (self.rest + piece).split(b"\n")
                    for line in lines:
                        self.take(line)
        except OSError:
            return

    def take(self, line: bytes) -> None:
        """Take an event."""
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(event, dict):
            return
        kind, seen = event.get("kind"), self.seen
        seen["time"] = event.get("time", seen.get("time"))
        if kind == "training":
            seen["of"] = event.get("steps", seen.get("of"))
            self.go_back(event.get("from") or 0)
        elif kind in {"step", "progress", "checkpoint"}:
            for name in ("step", "of", "loss", "seconds_left", "memory", "tokens_per_second"):
                if event.get(name) is not None:
                    seen[name] = event[name]
        elif kind == "eval":
            seen["eval_loss"] = event.get("eval_loss", seen.get("eval_loss"))
            seen["eval_step"] = event.get("step")
        elif kind == "stage":
            seen["stage"] = event.get("stage") if event.get("state") == "started" else None
        elif kind == "failed":
            self.error = event["error"] if isinstance(event.get("error"), dict) else {"what": "failed"}
        elif kind in {"done", "preloaded"}:
            self.error = None

    def go_back(self, step: object) -> None:
        """Forget what was told of steps that are trained again: a run that was killed goes on from a checkpoint."""
        seen = self.seen
        if not isinstance(step, int) or not isinstance(last := seen.get("step"), int) or last <= step:
            return
        seen["step"] = step
        for name in ("loss", "seconds_left", "tokens_per_second"):
            seen.pop(name, None)
        if not isinstance(at := seen.get("eval_step"), int) or at > step:
            seen.pop("eval_loss", None)

    def line(self) -> dict[str, Any]:
        """Return the run as lists show it."""
        path, seen = self.folder.path, self.seen
        return {
            **blank(self.id, path.parent.name),
            **{name: seen[name] for name in NUMBERS if name in seen},
            "run": f"{path.parent.name}/{path.name}",
            "state": self.state,
            "error": self.error,
            "events": self.position,
            "sort": _time_of(path.name) or seen.get("time") or 0.0,
        }


NUMBERS = ("step", "of", "loss", "eval_loss", "seconds_left", "tokens_per_second", "memory", "stage", "time")
"""What a run's events tell of it, as lists show it."""


def blank(name: str, called: str) -> dict[str, Any]:
    """Return what lists show of something of which nothing is known but its id and its name."""
    return {
        "id": name,
        "run": None,
        "name": called,
        "kind": "run",
        "state": "unknown",
        "entry": None,
        "position": None,
        **dict.fromkeys(NUMBERS),
        "error": None,
        "events": 0,
        "url": f"/api/v1/runs/{name}",
        "waiting": [],
        "stopping": False,
        "sort": 0.0,
    }


def waiting_line(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry that has no run, as lists show it among the runs."""
    kept = {name: entry[name] for name in ("kind", "state", "position", "error", "stopping")}
    times = {"time": entry["ended"] or entry["begun"] or entry["added"], "sort": entry["added"]}
    return {**blank(entry["id"], entry["name"]), **kept, **times, "entry": entry["id"]}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size


def id_of(path: Path) -> str:
    """Return the id of a run, by its folder ``name/time``."""
    return f"{path.parent.name}~{path.name}"


class Watch:
    """All runs below a folder, and its queue.

    Args:
        runs: The folder of all runs.
        shelf: Its queue.

    Attributes:
        lines: Runs and entries without one, by id, as lists show them, the newest first.
        queue: The queue: its entries, why it is paused, and what trains without it.
        version: Grows with each change.
    """

    def __init__(self, runs: Path, shelf: Shelf) -> None:
        self.runs, self.shelf = runs, shelf
        self.views: dict[str, View] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.queue: dict[str, Any] = {"entries": [], "paused": None, "by_hand": []}
        self.begun_by: dict[str, str] = {}
        self.version = 0
        self.changed: dict[str, int] = {}
        self.cost = 0.0

    def refresh(self) -> None:
        """Look at the files again."""
        begun = time.monotonic()
        entries = listing(self.shelf)
        self.find()
        for view in list(self.views.values()):
            view.update()
        lines = {name: view.line() for name, view in self.views.items()}
        by_path = {str(view.folder.path): name for name, view in self.views.items()}
        begun_by, by_hand = {}, {name for name, line in lines.items() if line["state"] == "running"}
        for entry in sorted(entries, key=lambda entry: entry["id"]):  # the newest entry of a run tells last
            name = by_path.get(str(entry["folder"]))
            if name is None:
                name = entry["id"]
                lines[name] = waiting_line(entry)
            else:
                join(entry, lines[name])
                if entry["state"] == GOING:
                    by_hand.discard(name)
            begun_by[entry["id"]] = name
        hand = sorted(lines[name]["run"] for name in by_hand)
        queue = {"entries": entries, "paused": self.shelf.paused(), "by_hand": hand}
        ordered = dict(sorted(lines.items(), key=lambda item: _order(item[1]), reverse=True))
        fresh = {name for name, line in ordered.items() if self.lines.get(name) != line}
        if fresh or self.lines.keys() - ordered.keys() or queue != self.queue:
            version = self.version + 1
            self.changed = {name: seen for name, seen in self.changed.items() if name in ordered}
            self.changed |= dict.fromkeys(fresh, version)
            self.lines, self.queue, self.begun_by, self.version = ordered, queue, begun_by, version
        self.cost = time.monotonic() - begun

    def find(self) -> None:
        """Look for runs that are new, and forget those that are gone."""
        there = set()
        for path in self.runs.glob("*/*/plan.json"):
            folder = path.parent
            if folder.parent.name.startswith("."):
                continue
            name = id_of(folder)
            there.add(name)
            if name not in self.views:
                self.views[name] = View(RunFolder(folder), name)
        for name in self.views.keys() - there:
            del self.views[name]

    def find_line(self, name: str) -> dict[str, Any] | None:
        """Return a run by its id, or by the id of an entry that began something of it."""
        if name in self.lines:
            return self.lines[name]
        return self.lines.get(self.begun_by.get(name, ""))


def join(entry: dict[str, Any], line: dict[str, Any]) -> None:
    """Tell in a run's line what an entry of the queue knows of it."""
    state = entry["state"]
    if state == WAITING:
        line["waiting"].append(entry["id"])
        return
    line["entry"] = entry["id"]
    if state == GOING:
        line |= {"state": "running", "kind": entry["kind"], "stopping": entry["stopping"], "error": None}
        return
    failed = state in {"failed", "lost"}
    if line["state"] == "running":  # somebody went on with it by hand
        return
    counts = failed or (state == "stopped" and line["state"] in {"failed", "planned"})
    if counts and entry["kind"] in TRAINING and line["state"] != "trained":
        line["state"] = state
    line["error"] = entry["error"] if failed else None


TRAINING = frozenset({"run", "dry-run", "resume"})
"""Kinds of entries by whose end a run is judged; an export that failed leaves it trained."""


def _order(line: dict[str, Any]) -> tuple[int, float]:
    """Return what lists are sorted by, the largest first: what runs, what waits in its order, and then the newest."""
    if line["state"] == WAITING and line["position"] is not None:
        return 1, -line["position"]
    return {"running": 2, WAITING: 1}.get(line["state"], 0), line["sort"]


def _time_of(name: str) -> float | None:
    """Return when a run was made, by its folder's name; None where it has another."""
    try:
        return time.mktime(time.strptime(name[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return None
