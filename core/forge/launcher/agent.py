"""The agent of ``torchrun`` on one node, and an eye on its workers beside it.

The agent knows exit codes, but not who went first: once one worker has failed it ends the others, counts them among the
failures, and gives each half a minute to go (``torch/distributed/elastic/multiprocessing/api.py``,
``SubprocessContext._poll``, torch 2.11 to 2.13). So their ends are noted as they come, and who waits for one that is
gone is not waited for.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from forge.disk.meeting import Ended
from forge.errors import ForgeError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.disk.meeting import Meeting
    from forge.job.tables import LaunchTable

GRACE = 5.0
"""Seconds in which workers may say what they know once one of them has failed; then they are killed."""

_LOOK = 0.02
_MONITOR = 0.25


class Agent:
    """The agent, and what it does not tell.

    Args:
        command: The command of a worker.
        table: ``[launch]``, decided.
        meeting: Where the nodes meet.
        node: The number of this one.

    Attributes:
        error: What kept the agent from its work, if something did.
    """

    def __init__(self, command: Sequence[str], table: LaunchTable, meeting: Meeting, node: int) -> None:
        from torch.distributed.elastic.agent.server.api import WorkerSpec
        from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.elastic.rendezvous import RendezvousParameters
        from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler

        meet = RendezvousParameters(
            backend="static",  # each node has its number: ranks begin at the first one, where the parent is
            endpoint=f"{meeting.address}:{meeting.port}",
            run_id=meeting.id,
            min_nodes=table.nodes,
            max_nodes=table.nodes,
            rank=node,
            timeout=table.timeout,
        )
        spec = WorkerSpec(
            role="worker",
            local_world_size=int(table.processes),
            rdzv_handler=create_rdzv_handler(meet),
            entrypoint=command[0],
            args=tuple(command[1:]),
            max_restarts=0,  # it could only begin at step 0 again
            monitor_interval=_MONITOR,
            master_addr=meeting.address,
            master_port=meeting.port,
        )
        self.error: BaseException | None = None
        self._table, self._meeting = table, meeting
        self._agent = LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=os.devnull))
        self._ended: dict[int, Ended] = {}
        self._failed: float | None = None  # when the first one did
        self._over = threading.Event()

    def run(self) -> None:
        """Start the workers and watch them until all have ended."""
        watching = threading.Thread(target=self._watch, name="watch", daemon=True)
        watching.start()
        try:
            failures = self._agent.run().failures
        except BaseException as error:  # noqa: BLE001 - raised again by who started this thread
            self.error = error
            failures = {}
        self._over.set()
        watching.join()
        for rank, failure in sorted(failures.items()):
            if rank not in self._ended:
                self._note(rank, failure.pid, failure.exitcode)

    def fault(self) -> ForgeError:
        """Return what kept the agent from its work, as who began the training should read it."""
        assert self.error is not None
        where, nodes = f"{self._meeting.address}:{self._meeting.port}", self._meeting.nodes
        if nodes > 1 and (came := re.search(r"(\d+)/\d+ clients joined", str(self.error))):
            what = f"{came[1]} of {nodes} nodes came to {where} within {self._table.timeout} s"
            do = "begin forge worker-node on the others, see that they reach that address, or raise [launch] timeout"
            return ForgeError(what, "the training waits no longer", do)
        return ForgeError(f"the processes could not be started, which were to meet at {where}", first_line(self.error))

    @property
    def started(self) -> bool:
        """Whether there are workers, or were some."""
        return bool(self._ended) or any(isinstance(each.id, int) for each in self._agent.get_worker_group().workers)

    def workers(self) -> dict[int, int]:
        """Return the processes of the workers that were started and not seen to end, by their rank among all."""
        started = self._agent.get_worker_group().workers
        every = {worker.global_rank: worker.id for worker in started if isinstance(worker.id, int)}
        return {rank: pid for rank, pid in every.items() if rank not in self._ended}

    def ended(self) -> list[Ended]:
        """Return how the workers of this node ended, the first first."""
        return sorted(self._ended.values(), key=lambda each: each.time)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            found = [(rank, pid, code) for rank, pid in self.workers().items() if (code := self._code(pid)) is not None]
            # Of several at one look, those that were made to end come last.
            for rank, pid, code in sorted(found, key=lambda each: each[2] == -signal.SIGTERM):
                self._note(rank, pid, code)
            if self._failed is not None and time.time() - self._failed > GRACE:
                for pid in self.workers().values():
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, signal.SIGKILL)  # each has a session of its own

    def _code(self, pid: int) -> int | None:
        """Return how a worker ended, whoever has seen it first, the agent or this; None while it runs."""
        context = self._agent._pcontext  # noqa: SLF001 - it tells of ends no sooner than of all
        handlers = context.subprocess_handlers.values() if context is not None else ()
        return next((each.proc.poll() for each in handlers if each.proc.pid == pid), None)

    def _note(self, rank: int, pid: int, code: int) -> None:
        now = time.time()
        helped = self._failed is not None and code in (-signal.SIGTERM, -signal.SIGKILL)
        self._ended[rank] = Ended(rank, pid, code, now, helped)
        if code and self._failed is None:
            self._failed = now
