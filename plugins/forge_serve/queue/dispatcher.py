"""Starting what waits, one entry for each free slot of GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from forge.api import RunError, UsageError
from forge.disk.files import write_json
from forge.disk.owner import hold, is_held

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge_serve.queue.entry import Place
    from forge_serve.queue.shelf import Shelf


def slots_of(text: str) -> list[str | None]:
    """Return the slots of ``--slots``: sets of GPUs parted by semicolons; one of all GPUs where nothing is said.

    >>> slots_of("0;1,2")
    ['0', '1,2']
    >>> slots_of("")
    [None]

    Raises:
        UsageError: A slot is empty, or a GPU is in two of them.
    """
    if not text.strip():
        return [None]
    slots = [",".join(part.strip() for part in slot.split(",")) for slot in text.split(";")]
    cards = [card for slot in slots for card in slot.split(",")]
    if not all(cards):
        raise UsageError(f"--slots {text} is no list of slots", "a slot is empty", 'write --slots "0;1" or "0,1;2,3"')
    if twice := next((card for card in cards if cards.count(card) > 1), None):
        raise UsageError(f"--slots {text} cannot be used", f"GPU {twice} is in it twice", "give each GPU to one slot")
    return list(slots)


class Dispatcher:
    """Starts entries while it holds the queue's lock; a second one only looks on.

    Args:
        shelf: The queue.
        slots: Sets of GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; None stands for all that are there.
        pause_on_failure: Whether nothing more is begun once an entry has failed.
        wait: Whether nothing is begun while a training that was started by hand runs in the folder of runs.
    """

    def __init__(
        self, shelf: Shelf, slots: Sequence[str | None] = (None,), *, pause_on_failure: bool = False, wait: bool = False
    ) -> None:
        self.shelf, self.slots = shelf, list(slots)
        self.pause_on_failure, self.wait = pause_on_failure, wait
        self.stack = ExitStack()
        self.holds = False
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def take(self) -> bool:
        """Become the one who starts entries; False if another process is."""
        if not self.holds:
            self.shelf.path.mkdir(parents=True, exist_ok=True)
            try:
                self.stack.enter_context(hold(self.shelf.path / ".lock"))
            except RunError:
                return False
            self.holds = True
            self.shelf.free_claims()
        return True

    def close(self) -> None:
        """Let another process start entries; what runs goes on."""
        self.stack.close()
        self.holds = False

    def step(self) -> list[Place]:
        """Start what waits on the slots that are free, and return what was started."""
        self.reap()
        if not self.holds or self.shelf.paused() is not None:
            return []
        waiting = self.shelf.waiting()
        if not waiting:
            return []
        going = [str((place.begun or {}).get("devices")) for place in self.shelf.going()]
        free = [slot for slot in self.slots if str(slot) not in going]
        if len(going) - sum(str(slot) in going for slot in self.slots) > 0:  # begun under other slots: wait for it
            free = []
        if not free or (self.wait and self.by_hand()):
            return []
        started = []
        for slot, place in zip(free, waiting, strict=False):
            if self.shelf.claim(place):
                self.start(place, slot)
                started.append(place)
        return started

    def start(self, place: Place, slot: str | None) -> None:
        """Start the supervisor of an entry."""
        write_json(place.path / "begun.json", {"time": time.time(), "devices": slot})
        command = [sys.executable, "-P", "-m", "forge_serve.queue.supervisor", str(place.path)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_SERVE_")}
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
        with (place.path / "printed.txt").open("ab") as printed:
            child = subprocess.Popen(
                command,
                cwd=place.path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                **options,
            )
        self.children[place.entry.id] = child

    def reap(self) -> None:
        """Take notice of supervisors that have ended; a failure may pause the queue."""
        for name, child in list(self.children.items()):
            if child.poll() is None:
                continue
            del self.children[name]
            with suppress(RunError):
                place = self.shelf.find(name)
                if self.pause_on_failure and place.state() in {"failed", "lost"}:
                    self.shelf.pause(f"{place.entry.id} ({place.entry.name}) failed")

    def by_hand(self) -> list[Path]:
        """Return the folders of runs that are being trained and do not belong to an entry."""
        ours = {place.run for place in self.shelf.going()}
        held = (path.parent for path in self.shelf.runs.glob("*/*/.lock") if path.parent not in ours)
        return [path for path in held if not path.parent.name.startswith(".") and is_held(path / ".lock")]
