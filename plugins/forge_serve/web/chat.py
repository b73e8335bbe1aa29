"""Talking to what a run trained, and to its base model beside it: a process of `forge chat` for each."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from forge.api import ForgeError
from forge_serve.calls import job_error
from forge_serve.queue.supervisor import clean
from forge_serve.web.bodies import ChatBody, taken
from forge_serve.web.find import folder_of
from forge_serve.web.problems import Refused, answer, refused
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from forge_serve.web.server import Server

IDLE = 300.0
"""Seconds after which a model that nobody asks leaves memory."""

MOST = 2
"""Models that are held at a time: a tuned one and its base."""

LIMIT = 600.0
"""Seconds that an answer may take, the model's loading included."""


@dataclass(slots=True)
class Talk:
    """A process that answers.

    Attributes:
        process: ``forge chat``, which takes a question a line.
        used: When it was asked last.
        lock: Held by who asks.
        leaving: Whether it ends once nobody waits for its answer: what began to run since needs the memory.
    """

    process: asyncio.subprocess.Process
    used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    leaving: bool = False


async def ask(request: Request) -> Response:
    """Ask what a run trained, or its base model."""
    server, body = server_of(request), await taken(request, ChatBody)
    line, folder = folder_of(request)

    def check() -> None:
        folder.weights_or_refuse()
        job = folder.path / "job.toml"
        text = job.read_text(encoding="utf-8", errors="replace") if job.is_file() else ""
        if problems := server.rules.code_problems(text):
            raise refused(job_error(line["name"], problems))

    await run_in_threadpool(check)
    if line["state"] == "running":
        raise Refused(409, f"{line['id']} runs; its model can be asked when it has ended")
    options = ["--base"] * (body.model == "base")
    options += [f"--system={body.system}"] if body.system else []
    options += [] if body.max_new_tokens is None else [f"--max-new-tokens={body.max_new_tokens}"]
    options += [] if body.temperature is None else [f"--temperature={body.temperature}"]
    talk = await talking(server, str(folder.path), options)
    async with talk.lock:
        return answer(await asked(talk, " ".join(body.question.splitlines())))


async def talking(server: Server, run: str, options: list[str]) -> Talk:
    """Return the process that answers for a run with some options, started where there is none."""
    talks: dict[tuple[str, ...], Talk] = server.talks
    key = (run, *options)
    if key in talks and talks[key].process.returncode is None:
        return talks[key]
    free = [name for name, talk in talks.items() if not talk.lock.locked()]
    while len(talks) >= MOST:
        if not free:
            raise Refused(429, f"{MOST} models are being asked; wait for their answers", headers={"retry-after": "5"})
        close(talks.pop(free.pop(0)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "forge",
        "chat",
        run,
        *options,
        "--json",
        env=clean(os.environ, None),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        limit=2**24,
    )
    talks[key] = Talk(process)
    if len(talks) == 1:
        server.later(forget(server))
    return talks[key]


async def asked(talk: Talk, question: str) -> dict[str, Any]:
    """Ask a question and return the answer. Raises :class:`Refused`."""
    process = talk.process
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question.encode() + b"\n")
        await process.stdin.drain()
        text = await asyncio.wait_for(process.stdout.readline(), LIMIT)
    except TimeoutError:
        close(talk)
        raise Refused(504, f"there was no answer within {LIMIT:.0f} s") from None
    except ConnectionError:
        text = await process.stdout.read()
    except asyncio.CancelledError:  # an answer that nobody waits for would be taken for the next one's
        close(talk)
        raise
    talk.used = time.monotonic()
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        found = {"error": ForgeError("the model's process ended", "it said no more", "see the run's log").to_json()}
    if "error" in found:
        close(talk)
        raise refused(found["error"])
    return found


async def forget(server: Server) -> None:
    """End processes that nobody asks any more, whose run is gone, or whose memory is needed by what begins to run."""
    going = running(server)
    try:
        while server.talks:
            await asyncio.sleep(1)
            before, going = going, running(server)
            for key, talk in list(server.talks.items()):
                talk.leaving |= bool(going - before) or not Path(key[0]).is_dir()
                over = talk.leaving or time.monotonic() - talk.used > IDLE
                if (over and not talk.lock.locked()) or talk.process.returncode is not None:
                    close(server.talks.pop(key))
    finally:
        for talk in server.talks.values():
            close(talk)


def running(server: Server) -> set[str]:
    """Return what runs, by id."""
    return {name for name, line in server.watch.lines.items() if line["state"] == "running"}


def close(talk: Talk) -> None:
    """End a process that answers."""
    if talk.process.returncode is None:
        try:
            talk.process.terminate()  # it deletes its temporary folder, and its worker ends with it
        except ProcessLookupError:
            return
