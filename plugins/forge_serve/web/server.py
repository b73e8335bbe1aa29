"""What the server has: the rules, the folder of runs, its queue, and what it saw last."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.concurrency import run_in_threadpool

from forge_serve.calls import Answer, ask
from forge_serve.queue.shelf import Shelf
from forge_serve.watch import Watch
from forge_serve.web.problems import Refused, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from starlette.requests import Request

    from forge_serve.queue.dispatcher import Dispatcher
    from forge_serve.rules import Rules
    from forge_serve.web.guard import Door

Found = TypeVar("Found")

PERIOD = 0.4
"""Seconds between two looks at the files."""

STREAMS = 32
"""Streams that are open at a time."""

WAITING_CALLS = 16
"""Calls of forge that may wait for their turn."""


@dataclass
class Server:
    """What the server has.

    Attributes:
        door: Who may ask.
        rules: What jobs may do.
        runs: The folder of all runs.
        dispatcher: Starts what waits.
    """

    door: Door
    rules: Rules
    runs: Path
    dispatcher: Dispatcher
    streams: int = 0
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    kept: dict[str, tuple[float, Answer]] = field(default_factory=dict)
    shown: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    talks: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shelf: Shelf = self.dispatcher.shelf
        self.watch = Watch(self.runs, self.shelf)
        self.moved = asyncio.Condition()
        self.adding = asyncio.Lock()
        self.calls = asyncio.Semaphore(2)
        self.waiting = 0

    @asynccontextmanager
    async def life(self, _app: object) -> AsyncIterator[None]:
        """Look at the files for as long as the server lives."""
        await run_in_threadpool(self.look)
        looking = asyncio.create_task(self.keep_looking())
        try:
            yield
        finally:
            self.closing.set()
            for task in [looking, *self.tasks]:
                task.cancel()
            for task in [looking, *self.tasks]:
                with suppress(asyncio.CancelledError):
                    await task
            self.dispatcher.close()

    def look(self) -> None:
        """Start what can be started, and look at the files."""
        if self.dispatcher.take():
            self.dispatcher.step()
        self.watch.refresh()

    async def keep_looking(self) -> None:
        """Look at the files again and again, and wake the streams when something has changed."""
        said = ""
        while True:
            before = self.watch.version
            try:
                await run_in_threadpool(self.look)
                said = ""
            except Exception as error:  # noqa: BLE001 - a disk that is full today is not tomorrow: it goes on
                if (now := f"{type(error).__name__}: {error}") != said:
                    print(f"forge serve: cannot look at the runs: {now}", file=sys.stderr)  # noqa: T201
                    said = now
            if self.watch.version != before:
                async with self.moved:
                    self.moved.notify_all()
            await asyncio.sleep(max(PERIOD, 10 * self.watch.cost))  # a tenth of the time at most

    async def look_now(self) -> None:
        """Look at the files at once: something was changed by a request."""
        await run_in_threadpool(self.look)
        async with self.moved:
            self.moved.notify_all()

    async def asked(self, call: Callable[[], Awaitable[Found]]) -> Found:
        """Ask forge something, two at a time. Raises :class:`Refused` where too many wait for their turn."""
        if self.waiting >= WAITING_CALLS:
            raise Refused(429, f"{WAITING_CALLS} calls of forge wait for their turn", headers={"retry-after": "2"})
        self.waiting += 1
        try:
            async with self.calls:
                return await call()
        finally:
            self.waiting -= 1

    async def remembered(self, arguments: Sequence[str], seconds: float) -> Any:
        """Return what a command of forge says, asked again once it is older than so many seconds."""
        key = " ".join(arguments)
        known = self.kept.get(key)
        if known is None or time.monotonic() - known[0] > seconds:
            found = await self.asked(lambda: ask(arguments))
            self.kept[key] = known = (time.monotonic(), found)
        if known[1].error is not None:
            del self.kept[key]
            raise refused(known[1].error)
        return known[1].value

    def later(self, work: Any) -> None:
        """Do something beside the answer."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def server_of(request: Request) -> Server:
    """Return the server that a request is for."""
    found: Server = request.app.state.server
    return found
