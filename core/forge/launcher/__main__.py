"""``python -m forge.launcher RUN PLAN``: start the workers of this node, and say how each of them ended.

The agent of ``torchrun`` starts and watches them (``torch.distributed.elastic``). It runs in a thread, where it leaves
signals alone: SIGTERM is passed on to the workers, which save and stop, and this process ends when they have. It begins
nothing anew: what goes on does so from a checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api.plan import Plan
from forge.disk.meeting import LAUNCHER, Meeting, node_of
from forge.launcher.agent import Agent
from forge.masking import mask_output

if TYPE_CHECKING:
    from types import FrameType


def main(arguments: list[str]) -> int:
    """Run the workers of a plan on this node, and return 0, or the exit code of the first one that failed."""
    mask_output()
    folder, plan, node = Path(arguments[0]), Path(arguments[1]), node_of(os.environ)
    command, meeting = [sys.executable, "-P", "-m", "forge.worker", str(folder), str(plan)], Meeting.read(folder)
    os.environ[LAUNCHER] = str(os.getpid())
    agent = Agent(command, Plan.read(plan).launch, meeting, node)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for pid in agent.workers().values():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent passes it on once
    thread = threading.Thread(target=agent.run, name="agent")
    thread.start()
    thread.join()
    meeting.say(folder, node, agent.ended())
    if agent.error is not None:
        raise agent.error
    return next((each.code if each.code > 0 else 1 for each in agent.ended() if each.code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
