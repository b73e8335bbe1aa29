"""All entries of a queue: adding, listing, ordering, removing, and the wish to stop one."""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import RunError, UsageError
from forge.disk.faults import disk_errors
from forge.disk.files import write_json, write_text
from forge.disk.owner import is_held
from forge_serve.queue.entry import GOING, OVER, WAITING, Entry, Place, read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = ".queue"
PAUSED = "paused.json"
MOST = 100
"""Entries that may wait at a time."""

KEPT = 200
"""Entries that are over and still listed."""


class Shelf:
    """The entries below a folder of runs.

    Args:
        runs: The folder of all runs.

    Attributes:
        path: The folder of the entries.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs.absolute()
        self.path = self.runs / FOLDER
        self.known: dict[str, Place] = {}

    def places(self) -> list[Place]:
        """Return all entries, in the order of their making; what is half made or damaged is left out."""
        paths = {path.parent.name: path.parent for path in self.path.glob("[0-9]*/entry.json")}
        known = {name: place for name, place in self.known.items() if name in paths}
        for name in paths.keys() - known.keys():
            with suppress(RunError):
                known[name] = Place(paths[name])
        self.known = known  # what an entry is does not change
        return [known[name] for name in sorted(known)]

    def find(self, text: str) -> Place:
        """Return an entry by its id, or the beginning of it. Raises :class:`RunError` if there is none, or several."""
        fitting = [place for place in self.places() if place.entry.id.startswith(text)] if text else []
        exact = [place for place in fitting if place.entry.id == text] or fitting
        if len(exact) == 1:
            return exact[0]
        if exact:
            names = ", ".join(place.entry.id for place in exact)
            raise RunError(f"{text} fits several entries of the queue", names, "name one of them")
        raise RunError(
            f"there is no entry {text} in the queue", f"looked in {self.path}", "`forge queue list` lists them"
        )

    def waiting(self) -> list[Place]:
        """Return the entries that wait, the next first."""
        found = [place for place in self.places() if place.over is None and not (place.path / "claim").exists()]
        return sorted(found, key=lambda place: (place.order, place.entry.id))

    def going(self) -> list[Place]:
        """Return the entries that are being done."""
        return [place for place in self.places() if place.over is None and place.state() == GOING]

    def by_key(self, key: str) -> Place | None:
        """Return the entry that came with an Idempotency-Key."""
        return next((place for place in self.places() if place.entry.key == key), None)

    def by_run(self, run: Path) -> list[Place]:
        """Return the entries of a run, the newest last."""
        return [place for place in self.places() if place.run == run]

    def add(
        self,
        kind: str,
        name: str,
        *,
        job: str | None = None,
        folder: Path | None = None,
        run: Path | None = None,
        options: Sequence[str] = (),
        source: str = "cli",
        key: str | None = None,
    ) -> Place:
        """Put something into the queue, behind all others.

        Args:
            kind: One of :data:`forge_serve.queue.entry.KINDS`.
            name: What people call it.
            job: The text of a job.
            folder: Where relative paths of the job start.
            run: The folder of a run, for what is done to one.
            options: Further options of the command.
            source: Who adds it.
            key: An Idempotency-Key.

        Raises:
            UsageError: Too many wait.
        """
        if len(self.waiting()) >= MOST:
            why = f"{MOST} entries wait, and more are not taken"
            raise UsageError("the queue is full", why, "remove some: forge queue rm ID")
        self.prune()
        now = time.time()
        stamp = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{now % 1 * 1000:03.0f}{secrets.token_hex(2)}"
        file = None if job is None else f"{name}.toml"
        entry = Entry(
            id=stamp,
            kind=kind,
            name=name,
            time=now,
            job=file,
            folder=None if folder is None else str(folder),
            run=None if run is None else str(run),
            options=tuple(options),
            source=source,
            key=key,
        )
        path = self.path / stamp
        with disk_errors(path):
            path.mkdir(parents=True)
            if job is not None and file is not None:
                write_text(path / file, job)
            write_json(path / "entry.json", entry.to_json())  # last: an entry without it is not seen
        return Place(path)

    def claim(self, place: Place) -> bool:
        """Take an entry that waits, to start or to remove it; False if somebody else has."""
        try:
            (place.path / "claim").open("x").close()
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def remove(self, place: Place) -> None:
        """Remove an entry that waits or is over. Raises :class:`RunError` if it is being done."""
        if not self.claim(place) and place.state() not in OVER:
            do = f"stop it: forge queue stop {place.entry.id}"
            raise RunError(f"{place.entry.id} has been started", "only what waits, or is over, can be removed", do)
        shutil.rmtree(place.path, ignore_errors=True)

    def move(self, place: Place, position: int) -> None:
        """Put an entry that waits at a position among those that wait, from 0. Raises :class:`RunError`."""
        if (place.path / "claim").exists():
            raise RunError(f"{place.entry.id} waits no longer", f"it is {place.state()}", "see `forge queue list`")
        others = [other for other in self.waiting() if other.entry.id != place.entry.id]
        position = min(position, len(others))
        before = others[position - 1].order if position > 0 else None
        after = others[position].order if position < len(others) else None
        if before is None and after is None:
            return
        if before is None or after is None:
            order = (before + 1) if before is not None else (after or 0) - 1
        else:
            order = (before + after) / 2
        write_json(place.path / "order.json", {"order": order})

    def ask_to_stop(self, place: Place, *, now: bool) -> None:
        """Ask an entry that is being done to save and stop, or to end at once. Raises :class:`RunError`."""
        if (state := place.state()) != GOING:
            raise RunError(f"{place.entry.id} does not run", f"it is {state}", "see `forge queue list`")
        if now or not (place.path / "stop").exists():
            write_text(place.path / "stop", "now" if now else "stop")

    def paused(self) -> dict[str, Any] | None:
        """Return why nothing is begun: ``why`` and ``time``; None if the queue goes on."""
        return read_json(self.path / PAUSED)

    def pause(self, why: str) -> None:
        """Begin nothing more until :meth:`go_on`."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / PAUSED, {"why": why, "time": time.time()})

    def go_on(self) -> None:
        """Begin entries again."""
        (self.path / PAUSED).unlink(missing_ok=True)

    def free_claims(self) -> None:
        """Let those wait again that a dispatcher took and did not start, as it was killed; for its heir only."""
        for place in self.places():
            claim = place.path / "claim"
            if claim.exists() and place.begun is None and not is_held(place.path / ".lock"):
                claim.unlink(missing_ok=True)

    def prune(self) -> None:
        """Delete what is over, but the newest; and what was being added when a kill came."""
        over = [place for place in self.places() if (place.path / "ended.json").exists()]
        for place in over[:-KEPT]:
            shutil.rmtree(place.path, ignore_errors=True)
        for path in self.path.glob("[0-9]*/"):
            with suppress(OSError):
                if not (path / "entry.json").exists() and time.time() - path.stat().st_mtime > 3600:
                    shutil.rmtree(path, ignore_errors=True)


def told(place: Place, position: int | None = None) -> dict[str, Any]:
    """Return an entry and what became of it as JSON data, for who lists the queue."""
    entry, outcome = place.entry, place.outcome()
    begun = place.begun or {}
    return {
        "id": entry.id,
        "kind": entry.kind,
        "name": entry.name,
        "state": outcome["state"],
        "position": position if outcome["state"] == WAITING else None,
        "source": entry.source,
        "added": entry.time,
        "begun": begun.get("time"),
        "devices": begun.get("devices"),
        "ended": outcome.get("time"),
        "error": outcome.get("error"),
        "folder": str(place.run) if place.run else None,
        "stopping": outcome["state"] == GOING and (place.path / "stop").exists(),
    }


def listing(shelf: Shelf) -> list[dict[str, Any]]:
    """Return all entries as JSON data: what is being done, what waits in its order, what is over."""
    waiting = {place.entry.id: index for index, place in enumerate(shelf.waiting())}
    lines = []
    for place in shelf.places():
        if (line := place.line) is None:
            line = told(place, waiting.get(place.entry.id))
            if place.over is not None:
                place.line = line
        lines.append(line)
    rank = {GOING: 0, WAITING: 1}

    def key(line: dict[str, Any]) -> tuple[int, float]:
        state, position, added = str(line["state"]), line["position"], line["added"]
        assert isinstance(added, float)
        by = position if isinstance(position, int) else -added
        return rank.get(state, 2), by

    return sorted(lines, key=key)
