"""What waits in the queue: an entry, and what became of it.

An entry is a folder, ``<runs>/.queue/<id>/``, and each of its files is written once, by one process, so that none needs
another's leave:

============== =======================================================================================
``entry.json`` what is to be done; written by who adds it
``<name>.toml`` the job, for an entry that trains one
``order.json`` its place among those that wait, once somebody has changed it
``claim``      made by who starts or removes the entry; the system lets only one make it
``begun.json`` when it was started, on which GPUs; written by the dispatcher
``run.json``   the folder of its run, once there is one; written by the supervisor
``stop``       the wish to stop, ``stop`` or ``now``
``ended.json`` how it ended; written by the supervisor
``printed.txt`` what forge printed
``.lock``      held by the supervisor for as long as it lives
============== =======================================================================================
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError, RunError
from forge.disk.folder import RunFolder
from forge.disk.owner import is_held

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = {
    "run": ("run",),
    "dry-run": ("run", "--dry-run"),
    "resume": ("resume",),
    "export": ("export",),
    "eval": ("eval",),
}
"""What an entry can do: the command of forge that does it."""

WAITING = "queued"
GOING = "running"
OVER = ("done", "failed", "stopped", "lost")
STARTING = 10.0
"""Seconds that a supervisor may take from its start until it holds the entry's lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be done, as ``entry.json`` has it.

    Attributes:
        id: Its name, by which it is asked for; names sort by the time of their making.
        kind: One of :data:`KINDS`.
        name: What people call it: the job's name.
        time: When it was added, in seconds since the epoch.
        job: The file of its job in the entry's folder; None for what is done to a run that is there.
        folder: Where relative paths of the job start.
        run: The folder of the run that it is done to.
        options: Further options of the command, as ``--set=train.max_steps=3``.
        source: Who added it: ``"cli"`` or ``"http"``.
        key: The Idempotency-Key that it came with.
    """

    id: str
    kind: str
    name: str
    time: float
    job: str | None = None
    folder: str | None = None
    run: str | None = None
    options: tuple[str, ...] = ()
    source: str = "cli"
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Entry:
        """Rebuild an entry. Raises :class:`ValueError` if it is none."""
        known = {each.name for each in fields(cls)}
        if not isinstance(data, dict) or not {"id", "kind", "name", "time"} <= data.keys() <= known:
            raise ValueError("it does not hold what an entry holds")
        if data["kind"] not in KINDS:
            raise ValueError(f"there is no kind {data['kind']}")
        return cls(**{**data, "options": tuple(data.get("options", ()))})


class Place:
    """The folder of an entry.

    Attributes:
        path: The folder.
        entry: What is to be done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line: dict[str, Any] | None = None  # what is told of it, once it has ended
        self.over: dict[str, Any] | None = None  # once it has ended, nothing of it changes any more
        told = read_json(path / "entry.json")
        if told is None:
            raise RunError(f"there is no entry {path.name} in the queue", do="`forge queue list` lists them")
        try:
            self.entry = Entry.from_json(told)
        except (ValueError, TypeError) as error:
            raise RunError(f"{path / 'entry.json'} is damaged", str(error), f"delete {path}") from error

    @property
    def order(self) -> float:
        """What entries that wait are sorted by: the smallest is next."""
        changed = read_json(self.path / "order.json")
        return float(changed["order"]) if changed else self.entry.time

    @property
    def begun(self) -> dict[str, Any] | None:
        """When it was started, and on which GPUs."""
        return read_json(self.path / "begun.json")

    @property
    def ended(self) -> dict[str, Any] | None:
        """How it ended: ``state``, ``time``, ``code`` and ``error``."""
        return read_json(self.path / "ended.json")

    @property
    def run(self) -> Path | None:
        """The folder of its run, once there is one."""
        found = read_json(self.path / "run.json")
        named = found["run"] if found else self.entry.run
        return Path(named) if named else None

    def command(self) -> list[str]:
        """Return the arguments of ``forge`` that do it."""
        kind = self.entry.kind
        first, *more = KINDS[kind]
        runs = self.path.parent.parent
        if self.entry.job is not None:
            about = [str(self.path / self.entry.job), f"--job-dir={self.entry.folder}"]
        else:
            about = [str(self.entry.run)]
        return [first, *about, *more, *self.entry.options, f"--runs-dir={runs}", "--json"]

    def state(self) -> str:
        """Return ``queued``, ``running``, ``done``, ``failed``, ``stopped`` or ``lost``."""
        return self.outcome()["state"]  # type: ignore[no-any-return]

    def outcome(self) -> dict[str, Any]:
        """Return the state and what is known of the end: ``state``, ``time``, ``code``, ``error``.

        The supervisor writes how an entry ended. Where it was killed itself, the run's own files tell.
        """
        if self.over is None:
            self.over = self.ended
        if self.over is not None:
            return self.over
        begun = self.begun
        if begun is None:
            return {"state": WAITING}
        if is_held(self.path / ".lock") or time.time() - begun["time"] < STARTING:
            return self.ended or {"state": GOING}  # it may have ended between the two looks
        return self.ended or self._by_its_run()

    def _by_its_run(self) -> dict[str, Any]:
        """Return what became of an entry whose supervisor is gone, by what its run has written."""
        folder = None if self.run is None else RunFolder(self.run)
        if folder is not None and (folder.path / "plan.json").is_file():
            if folder.busy():
                return {"state": GOING}
            last = last_word(folder.events)
            state = {"failed": "failed", "stopped": "stopped"}.get(last.get("kind", ""))
            if last.get("kind") == "done" and folder.trained() is not None:
                state = "done"
            if state is not None:
                return {"state": state, "time": last.get("time"), "error": last.get("error")}
        what = "the entry was lost" if folder is None else "the run was lost"
        why = "what watched over it was killed, or the machine went down, and it left no last word"
        do = "go on with: forge resume" if folder is not None else "add it again"
        error = ForgeError(what, why, do if folder is None else f"{do} {folder.path}")
        return {"state": "lost", "time": None, "error": error.to_json()}


def last_word(events: Path) -> dict[str, Any]:
    """Return the event that tells how the last worker ended; an empty one where it did not."""
    found: dict[str, Any] = {}
    try:
        with events.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 2**16))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in lines:
        if b'"kind": "preloaded"' in line:
            found = {}
        elif any(mark in line for mark in (b'"kind": "failed"', b'"kind": "stopped"', b'"kind": "done"')):
            try:
                event = json.loads(line)
            except ValueError:  # the first line of what was read may be half of one
                continue
            found = event if event.get("kind") in {"failed", "stopped", "done"} else found
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a small file of an entry holds; None if it is not there.

    Raises:
        RunError: It holds no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged", str(error), f"delete {path.parent}") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} is damaged", "it holds no JSON object", f"delete {path.parent}")
    return data
