"""Several workers that train together, as the parent sees them: which error of all of them was the first.

When one is gone, the others lose a connection, and say so, often sooner than anyone knows of what happened. So what
each of them said, and how each ended, is looked through for what does not follow from another one's end.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from forge.api.event import Failed
from forge.disk.events import Follower
from forge.errors import ForgeError, Interrupted, PeerLost, from_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.disk.folder import RunFolder
    from forge.disk.meeting import Ended, Meeting

WAIT = 10.0
"""Seconds that the first node waits for what the other nodes' launchers say of their workers."""


class Ranks:
    """The workers of one attempt.

    Args:
        folder: The run.
        meeting: Where their launchers meet.
        size: How many there are.
    """

    def __init__(self, folder: RunFolder, meeting: Meeting, size: int) -> None:
        self.folder, self.meeting, self.size = folder, meeting, size
        self._others = {rank: Follower(folder.events_of(rank)) for rank in range(1, size)}

    def primary(
        self, first: ForgeError | None, killed: Callable[[Ended], ForgeError], *, stopped: bool, at: float | None = None
    ) -> ForgeError | None:
        """Return the error that the others follow from; None if none is known.

        Args:
            first: What rank 0 failed of, as it says.
            killed: Says of a worker that reported nothing how it ended.
            stopped: Whether rank 0 says that it was asked to stop: by the user, or since another one had failed.
            at: When rank 0 failed, in seconds since 1970.
        """
        told = self._said()
        said = {rank: error for _, rank, error in told}
        own = [] if first is None or isinstance(first, PeerLost) else [(at or 0.0, 0, first)]
        if known := sorted([*own, *(each for each in told if not isinstance(each[2], PeerLost))], key=_time):
            _, rank, error = known[0]
            if rank:
                error.what = f"{error.what} (in process {rank} of {self.size})"
            return error
        ended = self._ended()
        quiet = {0, Interrupted.exit_code}
        silent = [each for each in ended if each.code not in quiet and not each.helped and each.rank not in said]
        silent = [each for each in silent if each.rank != 0 or (first is None and not stopped)]
        # NCCL aborts a process that waits for another one in vain.
        if silent:
            return killed(min(silent, key=lambda each: each.code == -signal.SIGABRT))
        if stopped:
            return None
        if ended and ended[0].code == Interrupted.exit_code and isinstance(first, PeerLost | None):
            return Interrupted(f"process {ended[0].rank} of {self.size} was asked to stop", "so all of them ended")
        if first is None:
            first = next(iter(said.values()), None)
        hung = [str(each.rank) for each in ended if each.helped and each.rank not in said]
        if isinstance(first, PeerLost) and hung:
            first.why = f"{first.why}; process {' and '.join(hung)} was still there, and was ended"
        return first

    def log_of(self, rank: int) -> Path:
        """Return what a worker printed into: the log of its node."""
        node = rank // (self.size // self.meeting.nodes)
        return self.folder.log_of(node)

    def _ended(self) -> list[Ended]:
        """Return how they ended, as far as their launchers say."""
        others = self.meeting.nodes > 1 and self.meeting.is_over(self.folder.path)  # else its own launcher was killed
        until = time.monotonic() + (WAIT if others else 0)
        while (found := self.meeting.said(self.folder.path)) is None and time.monotonic() < until:
            time.sleep(0.2)
        return found or []

    def _said(self) -> list[tuple[float, int, ForgeError]]:
        """Return when and of what processes but the first one failed, in the order of time."""
        found = [
            (event.time or 0.0, rank, from_json(event.error))
            for rank, follower in self._others.items()
            for event in follower.poll()
            if isinstance(event, Failed)
        ]
        return sorted(found, key=_time)


def _time(found: tuple[float, int, ForgeError]) -> tuple[float, int]:
    return found[:2]
