"""A further node of a training: its launcher, for as long as the first node's forge makes attempts."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from forge.api.event import Noted
from forge.api.plan import Plan
from forge.disk.meeting import NODE, Meeting
from forge.errors import ForgeError, Interrupted, RunError
from forge.machine.probe import visible_by
from forge.parent.process import environment_of, start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.disk.folder import RunFolder
    from forge.parent.process import Show

LOOK = 2.0
"""Seconds between two looks for another meeting."""

LEFT = 20.0
"""Seconds after the first node's launcher in which those of the others end."""

AGAIN = 10.0
"""Seconds in which the first node may make another attempt, by another plan, once one has failed."""


def serve(folder: RunFolder, node: int, show: Show, *, wait: float) -> None:
    """Start this node's workers where the first node says that it waits for them, and see how they end.

    Args:
        folder: The run, on a disk that all nodes share.
        node: The number of this node; the first one has 0.
        show: Called with each event.
        wait: Seconds to wait for the first node.

    Raises:
        RunError: The first node does not wait for such a node, or has the run's folder at another path.
        Interrupted: The training was asked to stop.
        ForgeError: The workers failed; why, the first node says.
    """
    done, code, asked = "", None, False
    log = folder.log_of(node)
    with _Wish() as wish:
        while (meeting := _next(folder, done, wait if code is None else _patience(code), wish)) is not None:
            if not 0 < node < meeting.nodes:
                what = f"the training in {folder.path} has no node {node}"
                raise RunError(what, f"it is one of {meeting.nodes}, and 0 is the one that began it", "mend --node")
            there = _same(folder, meeting)
            path = there.path / meeting.plan
            plan = Plan.read(path)
            processes = plan.launch.processes
            several = f"{processes} process{'es' * (processes != 1)}"
            show(Noted(f"node {node} of {meeting.nodes}: {several}, meeting at {meeting.address}"))
            environment, _ = environment_of(there, path)
            environment[NODE] = str(node)
            check_cards(environment, plan, node)
            with log.open("ab") as output:
                launcher = start("forge.launcher", there, path, environment, stdout=output, stderr=subprocess.STDOUT)
                code = _end(launcher, folder, meeting, wish)
            if code and meeting.is_given_up(folder.path):
                code = Interrupted.exit_code
            done, asked = meeting.id, bool(wish.count)
    if code is None and not wish.count:
        what = f"no training in {folder.path} waits for a node"
        raise RunError(
            what, f"waited {wait:.0f} s for it", "begin it on the first node, and give this one the same disk"
        )
    if code in {None, Interrupted.exit_code} or (code and asked):  # asked to stop later, they had failed all the same
        raise Interrupted("stopped with the training" if code else "stopped before the training began")
    if code:
        raise ForgeError("the processes of this node failed", f"code {code}", f"see {log} and what node 0 says")


class _Wish:
    """The wish to stop, by Ctrl-C or SIGTERM: passed on to a launcher if there is one; a second one ends that at once.

    Attributes:
        count: How often it was said.
        launcher: The launcher at work.
    """

    def __init__(self) -> None:
        self.count = 0
        self.launcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._heed) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heed(self, _number: int, _frame: object) -> None:
        self.count += 1
        if self.launcher is not None:
            self.launcher.send_signal(signal.SIGTERM if self.count == 1 else signal.SIGKILL)


def check_cards(environment: Mapping[str, str], plan: Plan, node: int) -> None:
    """Refuse a node that shows fewer GPUs than each node is to use. Raises :class:`RunError`."""
    processes = plan.launch.processes
    visible = environment.get(name := visible_by(environment, plan.machine.accelerators))
    if visible and isinstance(processes, int) and (there := len(visible.split(","))) < processes:
        what = f"node {node} shows {there} GPU{'s' * (there != 1)} by {name}, and {processes} are used"
        raise RunError(what, "every node must have as many GPUs as the first", "show more, or name [launch] processes")


def _same(folder: RunFolder, meeting: Meeting) -> RunFolder:
    """Return a run's folder by the first node's path, if that leads to the same one here."""
    there = Path(meeting.folder)
    with suppress(RunError):
        if Meeting.read(there).id == meeting.id:
            return type(folder)(there)
    what = f"{folder.path} is {there} on the first node, and that is not this folder here"
    raise RunError(what, "processes find each other's files by their paths", "mount the disk at the same path")


def _patience(code: int) -> float:
    """Return how long another attempt may follow on one that ended with a code."""
    return AGAIN if code not in {0, Interrupted.exit_code} else 0.0


def _next(folder: RunFolder, done: str, wait: float, wish: _Wish) -> Meeting | None:
    until = time.monotonic() + wait
    while not wish.count:
        with suppress(RunError):
            meeting = Meeting.read(folder.path)
            if meeting.id != done and meeting.nodes > 1 and not meeting.is_over(folder.path):
                return meeting
        if time.monotonic() >= until:
            return None
        time.sleep(0.2)
    return None


def _end(launcher: subprocess.Popen[bytes], folder: RunFolder, meeting: Meeting, wish: _Wish) -> int:
    """Wait for a launcher, and return its code; a stop is the first node's word.

    Where the first node calls to another meeting, this one was left over by a first node that was killed. One that goes
    on when the meeting is over had no part in it: another one has come as the same node.
    """
    wish.launcher, over = launcher, 0.0
    try:
        if wish.count:  # it came as the launcher was started
            launcher.send_signal(signal.SIGTERM)
        while True:
            with suppress(subprocess.TimeoutExpired):
                return launcher.wait(timeout=LOOK)
            with suppress(RunError):
                if Meeting.read(folder.path).id != meeting.id:
                    launcher.kill()
            over = over or (time.monotonic() if meeting.is_over(folder.path) else 0.0)
            if over and time.monotonic() - over > LEFT:
                launcher.kill()
    finally:
        wish.launcher = None
