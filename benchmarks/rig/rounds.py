"""Sides that are all warm, timed in turn: rounds on one card in which only one side computes.

Single runs part by a tenth or two, and most of a short run is its start. So all sides start at once, each is halted
(SIGSTOP to its whole tree of processes) when it is warm, and then each gets the card to itself for some steps, round by
round. Ratios are taken within a round; the median of the rounds counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL = 0.05
LOGS = 5  # logs of a round, of which the first two are not counted: one began before the halt, one settles


@dataclass
class Side:
    """One side of a comparison.

    Attributes:
        name: What tables call it.
        start: Starts it and returns its process.
        steps: Reads the steps that it has logged so far: ``step``, ``time``, ``loss`` and ``memory`` of each.
        failure: Says why it ended before its time.
        process: Its process, once it was started.
        began: When it was started, in seconds since the epoch.
        paces: Seconds a step, one of each round.
    """

    name: str
    start: Callable[[], subprocess.Popen[Any]]
    steps: Callable[[], list[dict[str, Any]]]
    failure: Callable[[], str | None]
    process: subprocess.Popen[Any] | None = None
    began: float = 0.0
    paces: list[float] = field(default_factory=list)
    error: str | None = None


def tree(pid: int) -> list[int]:
    """Return a process and all that it has started, as /proc has them."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def send(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal to a process and all that it has started."""
    for pid in tree(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def until(side: Side, count: int, limit: float) -> bool:
    """Wait until a side has logged ``count`` steps; False if it ended or took longer than ``limit`` seconds."""
    end = time.time() + limit
    while len(side.steps()) < count:
        if side.process is None or side.process.poll() is not None:
            side.error = side.failure() or "it ended before it was measured"
            return False
        if time.time() > end:
            side.error = f"no {count} logs in {limit:.0f} s"
            return False
        time.sleep(POLL)
    return True


def interleaved(sides: list[Side], warm: int, rounds: int, limit: float = 240.0) -> None:
    """Time sides in turn; what was found stands in them.

    Args:
        sides: The sides; each must have work for longer than all rounds.
        warm: Logs after which a side is warm.
        rounds: How many rounds.
        limit: Seconds that a side may take to get warm, and for a round.
    """
    try:
        for side in sides:
            side.began = time.time()
            side.process = side.start()
        waiting = list(sides)
        end = time.time() + limit
        while waiting:
            for side in list(waiting):
                if side.process is not None and side.process.poll() is not None:
                    side.error = side.failure() or "it ended before it was measured"
                elif len(side.steps()) >= warm:
                    send(side.process, signal.SIGSTOP)  # type: ignore[arg-type]  # it was started
                elif time.time() > end:
                    side.error = f"not warm after {limit:.0f} s"
                else:
                    continue
                waiting.remove(side)
            time.sleep(POLL)
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                if side.error:
                    continue
                before = len(side.steps())
                send(side.process, signal.SIGCONT)  # type: ignore[arg-type]  # it was started
                ready = until(side, before + LOGS, limit)
                send(side.process, signal.SIGSTOP)  # type: ignore[arg-type]  # it was started
                if ready:
                    inside = side.steps()[before + 1 : before + LOGS]
                    gone = inside[-1]["time"] - inside[0]["time"]
                    side.paces.append(gone / (inside[-1]["step"] - inside[0]["step"]))
                    # At once: who ran out of time on a borrowed machine has what was measured until then.
                    print(f"round {number + 1}: {side.name} {side.paces[-1]:.4f} s a step", flush=True)
    finally:
        for side in sides:
            if side.process is not None:
                send(side.process, signal.SIGKILL)
                side.process.wait()


def summary(side: Side) -> dict[str, Any]:
    """Return what was found of a side."""
    steps = side.steps()
    return {
        "side": side.name,
        "error": side.error,
        "seconds_a_step": statistics.median(side.paces) if side.paces else None,
        "paces": [round(pace, 4) for pace in side.paces],
        "peak_gib": round(max((step["memory"] for step in steps), default=0) / 2**30, 2),
        "start": round(steps[0]["time"] - side.began, 1) if steps else None,
        "losses": [step["loss"] for step in steps],
    }
