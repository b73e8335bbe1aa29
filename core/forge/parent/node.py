"""A further node of a training: its launcher, for as long as the first node's forge makes attempts."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from forge.api.event import Noted
from forge.api.plan import Plan
from forge.disk.meeting import NODE, Meeting
from forge.errors import ForgeError, RunError
from forge.parent.process import environment_of, start

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder
    from forge.parent.process import Show

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
        RunError: The first node does not wait for such a node.
        ForgeError: The workers failed; why, the first node says.
    """
    done, code = "", None
    while (meeting := _next(folder, done, wait if code is None else AGAIN if code else 0.0)) is not None:
        if not 0 < node < meeting.nodes:
            what = f"the training in {folder.path} has no node {node}"
            raise RunError(what, f"it is one of {meeting.nodes}, and 0 is the one that began it", "mend --node")
        plan = folder.path / meeting.plan
        processes = Plan.read(plan).launch.processes
        show(Noted(f"node {node} of {meeting.nodes}: {processes} processes, meeting at {meeting.address}"))
        environment, _ = environment_of(folder, plan)
        with (folder.path / f"log.node{node}.txt").open("ab") as log:
            launcher = start(
                "forge.launcher", folder, plan, environment | {NODE: str(node)}, stdout=log, stderr=subprocess.STDOUT
            )
            code = _end(launcher)
        done = meeting.id
    if code is None:
        what = f"no training in {folder.path} waits for a node"
        raise RunError(
            what, f"waited {wait:.0f} s for it", "begin it on the first node, and give this one the same disk"
        )
    if code:
        raise ForgeError("the processes of this node failed", f"code {code}", f"see {folder.log} and what node 0 says")


def _next(folder: RunFolder, done: str, wait: float) -> Meeting | None:
    until = time.monotonic() + wait
    while True:
        with suppress(RunError):
            meeting = Meeting.read(folder.path)
            if meeting.id != done and meeting.nodes > 1 and not meeting.is_over(folder.path):
                return meeting
        if time.monotonic() >= until:
            return None
        time.sleep(0.2)


def _end(launcher: subprocess.Popen[bytes]) -> int:
    """Wait for a launcher; a stop is the first node's word, and a second signal here ends this node at once."""
    wishes: list[int] = []

    def stop(number: int, _frame: object) -> None:
        wishes.append(number)
        launcher.send_signal(signal.SIGTERM if len(wishes) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return launcher.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
