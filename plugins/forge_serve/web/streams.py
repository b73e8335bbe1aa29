"""What happens, as it happens: events of a run from a byte on, and one stream of all that changes.

A stream's ids are places in a run's ``events.jsonl``, so that a page that was away goes on where it was, by the header
``Last-Event-ID`` that browsers send of themselves, with nothing lost and nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from forge.api import masked
from forge_serve.web.files import PIECE, part
from forge_serve.web.find import folder_of, number_of
from forge_serve.web.problems import Refused
from forge_serve.web.queue import whole
from forge_serve.web.server import STREAMS, Server, server_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

QUIET = 10.0
"""Seconds after which a stream that has nothing to say says that it is still there."""

POLL = 0.1
"""Seconds between two looks at a run's events."""

SMALL = 2**14
"""Bytes of events that are read at once: a thread for them would take longer."""

LONGEST = 64 * PIECE
"""Bytes of a line that is sent; one that is longer is left out."""

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def events(request: Request) -> Response:
    """Return the events of a run from a byte on: lines of JSON, or a stream of them where one is asked for."""
    server, (_, folder) = server_of(request), folder_of(request)
    after = _place(request)
    if "text/event-stream" in request.headers.get("accept", ""):
        return _stream(request, server, _lines(folder.events, max(after, 0)))
    tail = number_of(request, "tail", 1, 10_000, 0)
    if tail:
        after = await run_in_threadpool(_from_end, folder.events, tail)
    before = number_of(request, "before", 0, 10**17, -1)
    begin, most = (max(before - PIECE // 4, 0), min(before, PIECE // 4)) if before >= 0 else (max(after, 0), PIECE)
    text, at, size = await run_in_threadpool(part, folder.events, begin, most)
    if before >= 0 and at > 0:  # it may begin within a line
        half = text.find(b"\n") + 1
        text, at = text[half:], at + half
    whole_lines = text[: text.rfind(b"\n") + 1]
    headers = {"forge-from": str(at), "forge-next": str(at + len(whole_lines)), "forge-size": str(size)}
    shown = await run_in_threadpool(lambda: masked(whole_lines.decode("utf-8", "replace")))
    return Response(shown, media_type="application/jsonl", headers=headers)


async def changes(request: Request) -> Response:
    """Return a stream of all that changes: runs, the queue, and the events of one run where the query names it."""
    server = server_of(request)
    path, after = None, _place(request)
    if "run" in request.query_params:
        request.path_params["id"] = request.query_params["run"]
        _, folder = folder_of(request)
        path = folder.events
        if after < 0:
            after = (await run_in_threadpool(part, path, -1, 1))[2]
    return _stream(request, server, _changes(server, path, after))


def _place(request: Request) -> int:
    """Return the byte that a stream begins at, by its header or its query; -1 where neither says it."""
    last = request.headers.get("last-event-id", "")
    if last.isascii() and last.isdecimal() and len(last) < 18:
        return int(last)
    return number_of(request, "after", 0, 10**17, -1)


def _from_end(path: Path, lines: int) -> int:
    """Return where the last lines of a file begin."""
    text, at, size = part(path, -1, 8 * PIECE)
    end = len(text)
    for _ in range(lines + 1):
        found = text.rfind(b"\n", 0, end)
        if found < 0:
            return at if at == 0 else at + text.find(b"\n") + 1
        end = found
    return min(at + end + 1, size)


def _stream(request: Request, server: Server, pieces: AsyncIterator[str]) -> Response:
    """Return an answer that goes on until its reader, or the server, goes away. Raises :class:`Refused`."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    if server.streams >= STREAMS:
        raise Refused(429, f"{STREAMS} streams are open, and more are not served", headers={"retry-after": "5"})
    server.streams += 1  # counted from here: what was accepted will be served

    return _Stream(server, pieces)


class _Stream(StreamingResponse):
    """A stream that gives back its place, and what its generator holds, whatever ends it."""

    def __init__(self, server: Server, pieces: AsyncIterator[str]) -> None:
        super().__init__(_sent(pieces), media_type="text/event-stream", headers=HEADERS)
        self.server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.server.streams -= 1
            await cast("AsyncGenerator[bytes]", self.body_iterator).aclose()


async def _sent(pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Yield a stream's messages as they are sent, after the milliseconds in which a browser comes back."""
    yield b"retry: 500\n\n"
    async for piece in pieces:
        yield piece.encode(errors="backslashreplace")


async def _lines(path: Path, after: int) -> AsyncGenerator[str]:
    """Yield a run's events from a byte on, as messages of a stream, and go on as they are written."""
    said = time.monotonic()
    while True:
        size = _size(path, int(time.monotonic() / POLL))
        if size < after:  # it was looked at before this stream's first line was there, or the file has been cut
            size = _size_now(path)
            after = min(after, size)
        messages = ""
        if 0 < size - after <= SMALL:
            messages, after = _messages(path, after, size)
        elif size > after:
            messages, after = await run_in_threadpool(_messages, path, after, size)
        if messages:
            said = time.monotonic()
            yield messages
            continue
        if time.monotonic() - said > QUIET:
            said = time.monotonic()
            yield ": still here\n\n"
        # All streams look at the same moments, and share what they see.
        await asyncio.sleep(POLL - time.monotonic() % POLL)


@lru_cache(maxsize=16)
def _size(path: Path, moment: int) -> int:
    """Return the size of a file, looked at once in a moment for all streams."""
    del moment
    return _size_now(path)


def _size_now(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@lru_cache(maxsize=16)
def _messages(path: Path, after: int, size: int) -> tuple[str, int]:
    """Return whole lines of a file as messages of a stream, and the byte behind them.

    What lies between two places of a file that only grows stays the same, and all who read on from there share it.
    """
    text, _, _ = part(path, after, min(size - after, 2**16))
    if b"\n" not in text and len(text) == 2**16:  # a line that is longer
        text, _, _ = part(path, after, min(size - after, LONGEST))
        if b"\n" not in text and len(text) == LONGEST:
            return "", after + LONGEST
    messages = []
    for line in text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]:
        after += len(line) + 1
        if said := line.strip():
            shown = masked(said.decode("utf-8", "replace").replace("\r", " "))
            messages.append(f"event: line\nid: {after}\ndata: {shown}\n\n")
    return "".join(messages), after


async def _changes(server: Server, path: Path | None, after: int) -> AsyncIterator[str]:
    """Yield what changes: ``hello`` with all runs, then ``run``, ``gone`` and ``queue``, and ``line`` of one run."""
    seen = server.watch.version
    known = set(server.watch.lines)
    queue = server.watch.queue
    first = {"runs": list(server.watch.lines.values())[:200], "queue": whole(server)}
    yield _message("hello", first)
    lines = None if path is None else _lines(path, max(after, 0))
    pending: asyncio.Task[str] | None = None
    said = time.monotonic()
    try:
        while True:
            if server.watch.version != seen:
                version, now = server.watch.version, server.watch.lines
                for name in [name for name, at in server.watch.changed.items() if at > seen and name in now]:
                    yield _message("run", now[name])
                for name in known - set(now):
                    yield _message("gone", {"id": name})
                if server.watch.queue != queue:
                    queue = server.watch.queue
                    yield _message("queue", whole(server))
                seen, known, said = version, set(now), time.monotonic()
            if lines is not None:
                pending = pending or asyncio.ensure_future(anext(lines))
                done, _ = await asyncio.wait({pending}, timeout=POLL)
                if done:
                    assert pending is not None
                    yield pending.result()
                    pending, said = None, time.monotonic()
            else:
                try:
                    async with server.moved:
                        await asyncio.wait_for(server.moved.wait(), QUIET)
                except TimeoutError:
                    said = 0.0
            if time.monotonic() - said > QUIET:
                said = time.monotonic()
                yield ": still here\n\n"
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        if lines is not None:
            await lines.aclose()


def _message(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {masked(json.dumps(data, ensure_ascii=False, default=str))}\n\n"
