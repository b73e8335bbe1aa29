"""``python -m forge.worker RUN PLAN``: one clean process that does what a plan says.

Everything that touches a model happens here, so that a crash of any kind ends this process and never the one that the
user talks to. The worker reads its plan and chooses nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from forge.api.event import Noted
from forge.api.plan import Plan
from forge.api.run import Run
from forge.disk.events import EventLog
from forge.disk.folder import RunFolder
from forge.disk.meeting import LAUNCHER
from forge.masking import mask_output
from forge.worker import BEGAN
from forge.worker.control import listen
from forge.worker.perform import perform
from forge.worker.ranks import rank_of, take_place
from forge.worker.sink import Sink

PATIENCE = 5.0
"""Seconds after which it is told what this process waits for when all is done."""


def tell_of_threads(run: Run, code: int) -> None:
    """Say after a while for which threads of plugins and libraries the interpreter waits; a stop ends it then."""
    asked = run.stop.is_set()

    def watch() -> None:
        time.sleep(PATIENCE)
        left = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
        if left:
            what = f"all is done, but a plugin or library has left threads running: {', '.join(left)}"
            run.emit(Noted(f"{what}; {'once more' if asked else 'Ctrl-C'} to stop at once"))
        if not asked:  # else the parent ends this process
            run.stop.wait()
            flush()
            os._exit(code)

    threading.Thread(target=watch, daemon=True).start()


def flush() -> None:
    """Write out what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a plugin may have closed it
            stream.flush()


def main(arguments: list[str]) -> int:
    """Do what a plan says, heed the parent, and return the exit code."""
    mask_output()
    several = LAUNCHER in os.environ
    folder, plan, rank = RunFolder(Path(arguments[0])), Plan.read(Path(arguments[1])), rank_of(os.environ)
    if several:
        take_place(os.environ, plan.machine.accelerators)
    sink = Sink(EventLog(folder.events_of(rank)))
    run = Run(folder=folder.path, plan=plan, sink=sink)
    run.group.rank = rank  # which is known before the others can be reached
    listen(run)
    code = perform(run, folder, sink, BEGAN)
    tell_of_threads(run, code)
    if several and code:  # what is left to tear down may wait for a process that is gone
        flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
