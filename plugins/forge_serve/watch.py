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
        elif kind in {"step", "progress", "checkpoint"}:
            for name in ("step", "of", "loss", "seconds_left", "memory", "tokens_per_second"):
                if event.get(name) is not None:
                    seen[name] = event[name]
        elif kind == "eval":
            seen["eval_loss"] = event.get("eval_loss", seen.get("eval_loss"))
        elif kind == "stage":
            seen["stage"] = event.get("stage") if event.get("state") == "started" else None
        elif kind == "failed":
            self.error = event["error"] if isinstance(event.get("error"), dict) else {"what": "failed"}
        elif kind in {"done", "preloaded"}:
            self.error = None

    def line(self) -> dict[str, Any]:
        """Return the run as lists show it."""
        names = ("step", "of", "loss", "eval_loss", "seconds_left", "memory", "tokens_per_second", "stage", "time")
        path = self.folder.path
        state = self.state
        return {
            "id": self.id,
            "run": f"{path.parent.name}/{path.name}",
            "name": path.parent.name,
            "kind": "run",
            "state": state,
            "entry": None,
            "position": None,
            **{name: self.seen.get(name) for name in names},
            "error": self.error,
            "events": self.position,
            "url": f"/api/v1/runs/{self.id}",
        }


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
        queue: The entries of the queue.
        version: Grows with each change.
    """

    def __init__(self, runs: Path, shelf: Shelf) -> None:
        self.runs, self.shelf = runs, shelf
        self.views: dict[str, View] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.queue: list[dict[str, Any]] = []
        self.version = 0
        self.changed: dict[str, int] = {}
        self.cost = 0.0

    def refresh(self) -> None:
        """Look at the files again."""
        begun = time.monotonic()
        queue = [dict(line) for line in listing(self.shelf)]
        self.find()
        for view in list(self.views.values()):
            view.update()
        lines = {name: view.line() for name, view in self.views.items()}
        for entry in reversed(queue):  # the newest entry of a run tells last
            self.join(entry, lines)
        ordered = dict(sorted(lines.items(), key=lambda item: (_rank(item[1]), item[1]["sort"]), reverse=True))
        version = self.version + 1
        gone = self.lines.keys() - ordered.keys()
        fresh = {name for name, line in ordered.items() if self.lines.get(name) != line}
        if gone or fresh or queue != self.queue:
            self.changed = {name: seen for name, seen in self.changed.items() if name in ordered}
            self.changed |= dict.fromkeys(fresh, version)
            self.lines, self.queue, self.version = ordered, queue, version
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

    def join(self, entry: dict[str, Any], lines: dict[str, dict[str, Any]]) -> None:
        """Put an entry of the queue beside its run, or among the runs where it has none yet."""
        folder = entry["folder"]
        name = next((name for name, view in self.views.items() if str(view.folder.path) == folder), None)
        if name is None:
            lines[entry["id"]] = {
                **dict.fromkeys(("step", "of", "loss", "eval_loss", "seconds_left", "memory", "stage")),
                "id": entry["id"],
                "run": None,
                "name": entry["name"],
                "kind": entry["kind"],
                "state": entry["state"],
                "entry": entry["id"],
                "position": entry["position"],
                "tokens_per_second": None,
                "time": entry["ended"] or entry["begun"] or entry["added"],
                "error": entry["error"],
                "events": 0,
                "url": f"/api/v1/runs/{entry['id']}",
                "sort": entry["added"],
            }
            return
        line = lines[name]
        if entry["state"] == WAITING:
            line["waiting"] = [*line.get("waiting", []), entry["id"]]
            return
        line["entry"] = entry["id"]
        if entry["state"] == GOING:
            line |= {"state": "running", "kind": entry["kind"], "stopping": entry["stopping"], "error": None}
        elif line["state"] == "running":  # by hand, since
            pass
        elif entry["kind"] in {"run", "resume", "dry-run"}:
            if entry["state"] in {"failed", "lost"} and line["state"] != "trained":
                line["state"] = entry["state"]
            elif entry["state"] == "stopped" and line["state"] in {"failed", "planned"}:
                line["state"] = "stopped"
            line["error"] = entry["error"] if entry["state"] in {"failed", "lost"} else line["error"]
        elif entry["error"]:
            line["error"] = entry["error"]

    def find_line(self, name: str) -> dict[str, Any] | None:
        """Return a run by its id, or by the id of the entry that began it."""
        if name in self.lines:
            return self.lines[name]
        return next((line for line in self.lines.values() if line["entry"] == name), None)


def _rank(line: dict[str, Any]) -> int:
    line.setdefault("waiting", [])
    line.setdefault("stopping", False)
    line.setdefault("sort", _time_of(line))
    return {"running": 2, WAITING: 1}.get(line["state"], 0)


def _time_of(line: dict[str, Any]) -> float:
    """Return when a run was made, by its folder's name; or when it was last heard of."""
    try:
        return time.mktime(time.strptime(str(line["run"]).rpartition("/")[2][:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return float(line["time"] or 0)
