"""Heeding the parent: a word on standard input, or its end, stops the worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api.event import Stopped
from forge.api.plan import Task
from forge.errors import Interrupted, MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api.run import Run

UNDONE: Mapping[Task, str] = {
    Task.TRAIN: "stopped where there was nothing new to save",
    Task.DRY_RUN: "stopped before the dry run ended",
    Task.DATA: "stopped before the rows were read",
    Task.EVAL: "stopped before the evaluation was whole; the trained weights are safe",
    Task.EXPORT: "stopped before the export was whole; the trained weights are safe",
}
"""What a stop means where a task does not save anything by itself."""


def listen(run: Run) -> None:
    """Stop when the parent says so or is gone: both arrive on standard input, which rank 0 alone reads of several."""
    control = os.dup(0)  # not inherited, and nothing else that this process starts reads from it
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        await_word(control)
        halt(run)

    if run.rank == 0:
        threading.Thread(target=wait, name="parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent passes it on once
    signal.signal(signal.SIGTERM, lambda *_: halt(run))


def await_word(control: int) -> None:
    """Return when a word arrives on a pipe, or its other end is closed."""
    if sys.platform == "win32":
        # A pending read on standard input would block libraries that look at it while they load (numpy#24290).
        import ctypes
        import msvcrt

        handle, count = ctypes.c_void_p(msvcrt.get_osfhandle(control)), ctypes.c_ulong()
        peek = ctypes.windll.kernel32.PeekNamedPipe
        while peek(handle, None, 0, None, ctypes.byref(count), None) and not count.value:
            time.sleep(0.2)
    else:
        os.read(control, 1)  # not sys.stdin: a thread inside its lock would abort the interpreter's shutdown


def halt(run: Run) -> None:
    """Ask a training to save and stop; end at once where there is nothing to save yet."""
    run.stop.set()
    if not run.graceful.is_set():
        with suppress(OSError, MachineError):  # a full disk must not keep it from ending
            run.emit(Stopped(UNDONE[run.plan.task]))
        os._exit(Interrupted.exit_code)
