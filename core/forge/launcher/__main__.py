"""``python -m forge.launcher RUN PLAN``: start the workers of this node, and say how each of them ended.

The agent of ``torchrun`` starts and watches them (``torch.distributed.elastic``). It runs in a thread, where it leaves
signals alone: SIGTERM is passed on to the workers, which save and stop, and this process ends when they have. It begins
nothing anew: what goes on does so from a checkpoint. On a further node the end of its ``forge worker-node`` is such a
signal, too; on the first one the first worker hears of it, once there is one.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api.event import Failed
from forge.api.plan import Plan
from forge.disk.events import EventLog
from forge.disk.folder import RunFolder
from forge.disk.meeting import LAUNCHER, Meeting, node_of
from forge.errors import Interrupted
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
        if not agent.started:  # it waits for other nodes, and there is nothing to save
            meeting.say(folder, node, [], given_up=True)
            os._exit(Interrupted.exit_code)
        for pid in agent.workers().values():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def watch() -> None:
        """Hear of the parent's wish to stop, and of its end, where no worker does."""
        while node or not agent.started:
            if select.select([0], [], [], 0.2)[0]:
                pass_on(signal.SIGTERM, None)
                return

    signal.signal(signal.SIGTERM, pass_on)
    threading.Thread(target=watch, name="parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent passes it on once
    thread = threading.Thread(target=agent.run, name="agent")
    thread.start()
    thread.join()
    meeting.say(folder, node, agent.ended())
    if agent.error is not None:
        if not node and not agent.ended():  # else a worker has said more
            EventLog(RunFolder(folder).events).append(Failed(agent.fault().to_json()))
        raise agent.error
    return next((each.code if each.code > 0 else 1 for each in agent.ended() if each.code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
