"""This process among those that train together: its number, its GPU, and how it speaks with the others.

``torchrun``'s agent has started it and says in variables which one it is. The group is made before any rows are read,
with the timeout of ``[launch]``: what accelerate would make later has none on a CPU (transformers,
``TrainingArguments._setup_devices``). What forge itself asks goes through groups of gloo beside it, so that a number or
a wish does not wait for a GPU.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from forge.api.group import Group
from forge.disk.meeting import LAUNCHER
from forge.errors import PeerLost, RunError, chain, first_line
from forge.machine.probe import visible_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from forge.api.run import Run
    from forge.machine.machine import Accelerator

T = TypeVar("T")

FAR_APART = 10.0
"""Seconds between two steps from which on processes wait for what the others wish."""

PATIENCE = timedelta(days=30)
"""How long the others wait for what rank 0 does alone, such as rendering rows; its end ends it anyway."""


def rank_of(environ: Mapping[str, str]) -> int:
    """Return the number of this process; 0 of one that trains alone."""
    return int(environ.get("RANK", "0"))


def take_place(environ: dict[str, str] | os._Environ[str], cards: Iterable[Accelerator]) -> None:
    """Take this process's GPU alone into sight, and end with the launcher."""
    local = int(environ.get("LOCAL_RANK", "0"))
    if shown := environ.get(name := visible_by(environ, cards)):
        # As in a training of one process, the GPU is cuda:0, and nothing can spread over another one's by mistake.
        environ[name] = shown.split(",")[local]
        environ["LOCAL_RANK"] = "0"
    end_with(int(environ[LAUNCHER]))


def end_with(parent: int) -> None:
    """Have the system kill this process once the one that started it is gone, whatever it is doing then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it went before that was said
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


@dataclass(slots=True)
class Asked:
    """A question that is asked at each step.

    Attributes:
        at: When it was asked last.
        far_apart: Whether the steps are so long that there is time to wait for the answers.
        on_the_way: Answers that nobody has waited for yet.
    """

    at: float = field(default_factory=time.monotonic)
    far_apart: bool = True
    on_the_way: list[tuple[Any, Any]] = field(default_factory=list)


class Together(Group):
    """Processes that train together, over groups of gloo.

    Args:
        timeout: How long one waits for the others.

    Raises:
        PeerLost: The others did not come.
    """

    def __init__(self, timeout: timedelta) -> None:
        import torch.distributed as dist

        self._dist, self._timeout = dist, timeout
        backend = "cpu:gloo,cuda:nccl" if _has_gpu() else "gloo"
        with _told("the processes cannot find each other"):
            dist.init_process_group(backend, timeout=timeout)
            self._quick = dist.new_group(backend="gloo", timeout=timeout)
            self._patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._asked: dict[str, Asked] = {}

    def barrier(self) -> None:
        """Return when all have called it."""
        self.agree(False)

    def gather(self, value: T) -> list[T]:
        """Return the values of all, by rank."""
        found: list[Any] = [None] * self.size
        with _told():
            self._dist.all_gather_object(found, value, group=self._quick)
        return found

    def agree(self, wish: bool) -> bool:
        """Return whether any of them wishes it."""
        import torch

        said = torch.tensor([int(wish)])
        with _told():
            self._dist.all_reduce(said, op=self._dist.ReduceOp.MAX, group=self._quick)
        return bool(said.item())

    def agree_soon(self, what: str, wish: bool) -> bool:
        """Return whether any of them wished it at the call before; also at this one, where calls are far apart.

        All do the same, since what they wait for depends on the longest of their times, which they tell each other.
        """
        import torch

        asked = self._asked.setdefault(what, Asked())
        now = time.monotonic()
        took, asked.at = now - asked.at, now
        said = torch.tensor([float(wish), took])
        with _told():
            own = self._dist.all_reduce(said, op=self._dist.ReduceOp.MAX, group=self._quick, async_op=True)
            answers, asked.on_the_way = [*asked.on_the_way, (own, said)], []
            if not asked.far_apart:
                asked.on_the_way = [answers.pop()]
            for word, _ in answers:
                word.wait()
        if answers:
            asked.far_apart = max(float(said[1]) for _, said in answers) >= FAR_APART
        return any(bool(said[0]) for _, said in answers)

    def first(self, value: T) -> T:
        """Return the value of rank 0.

        The others wait for its word with patience, and it for them no longer than in a step: a word is sent once the
        other side takes it.
        """
        import torch

        held = [value]
        with _told():
            word = self._dist.broadcast(torch.zeros(1), src=0, group=self._patient, async_op=True)
            word.wait(PATIENCE if self.rank else self._timeout)
            self._dist.broadcast_object_list(held, src=0, group=self._quick)
        return held[0]


@contextmanager
def _told(what: str = "another process of the training is gone") -> Iterator[None]:
    """Turn what torch raises where another process is gone into :class:`PeerLost`."""
    try:
        yield
    except RuntimeError as error:  # as all errors of torch's are; a value that cannot be sent raises others
        raise peer_lost(error, what, sure=True) or PeerLost(what, first_line(error)) from error


_GONE = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "Socket closed"),
    *("Connection closed by remote peer", "remote process exited", "communicator was aborted"),  # NCCL's
)
_SILENT = ("Timed out waiting", "timed out", "Timeout(ms)", "wait timeout", "watchdog")
_TORCH = ("gloo", "NCCL", "ProcessGroup", "TCPStore", "c10d", "collective", "recvBytes")


def peer_lost(
    error: BaseException, what: str = "another process of the training is gone", *, sure: bool = False
) -> PeerLost | None:
    """Return what torch raised of a collective as the loss of another process, or None if it says something else.

    Args:
        error: What was raised.
        what: What happened, where another process is gone.
        sure: Whether a collective raised it, even if its words do not say so.
    """
    for seen in chain(error):
        text = str(seen)
        of_torch = isinstance(seen, RuntimeError) and (sure or any(word in text for word in _TORCH))
        if of_torch and any(word in text for word in _SILENT):
            why = f"it did not come to the same point within [launch] timeout ({first_line(seen)[:160]})"
            return PeerLost("another process of the training does not answer", why, "raise timeout if it was at work")
        if of_torch and any(word in text for word in _GONE):
            return PeerLost(what, first_line(seen)[:160])
    return None


def join(run: Run, environ: Mapping[str, str]) -> None:
    """Make the group of a run's processes, if it has several; its plan says how many there must be.

    Raises:
        RunError: There are others than the plan is for.
        PeerLost: The others did not come.
    """
    launch, there = run.plan.launch, int(environ.get("WORLD_SIZE", "1"))
    if launch.world_size != there:
        what = f"{there} process{'es' * (there != 1)} were started for a training of {launch.world_size}"
        raise RunError(what, "every node must have as many GPUs as the first", "name [launch] processes")
    if there > 1:
        run.group = Together(timedelta(seconds=launch.timeout))


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
