"""Asking forge: its own commands, in processes of their own, whose answers are JSON.

So what the page says of a job is what the command says, to the letter, and nothing that a job names or a plugin does
while it plans can harm the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError, JobError, Problem
from forge_serve.queue.supervisor import clean

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command of forge said.

    Attributes:
        value: Its JSON, where it did what it should.
        error: Its error as JSON data, where it did not: ``type``, ``kinds``, ``what``, ``why``, ``do``, and
            ``problems`` of a job.
    """

    value: Any = None
    error: dict[str, Any] | None = None


def stem(name: str | None) -> str:
    """Return the name of a job's file, of which a run without a name gets its own."""
    return re.sub(r"[^\w.-]+", "-", name or "").strip(".-")[:64] or "job"


async def ask(arguments: Sequence[str], *, cwd: Path | None = None, limit: float = 120) -> Answer:
    """Run a command of forge and return what it said.

    Args:
        arguments: What stands behind ``forge``; ``--json`` among it.
        cwd: The folder that it runs in.
        limit: Seconds after which it is ended.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "forge",
        *arguments,
        cwd=cwd,
        env=clean(os.environ, None),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit)
    except TimeoutError:
        what = f"forge {arguments[0]} took more than {limit:.0f} s"
        return Answer(error=ForgeError(what, "it was ended", "try it in a terminal").to_json())
    finally:
        if process.returncode is None:  # too slow, or whoever asked has gone
            with suppress(ProcessLookupError, PermissionError):
                end(process.pid)
    text = out.decode("utf-8", "replace")
    if process.returncode == 0:
        with suppress(ValueError):
            return Answer(value=json.loads(text))
    lines = text.strip().splitlines()
    if lines and lines[-1].startswith('{"error":'):
        with suppress(ValueError):
            return Answer(error=json.loads(lines[-1])["error"])
    said = (err.decode("utf-8", "replace").strip().splitlines() or [f"code {process.returncode}"])[-1]
    return Answer(error=ForgeError(f"forge {arguments[0]} failed", said, "try it in a terminal").to_json())


def end(process: int) -> None:
    """End a process that leads a group, and all that it started."""
    if sys.platform == "win32":
        os.kill(process, signal.SIGTERM)
    else:
        os.killpg(process, signal.SIGKILL)


async def ask_of_job(
    command: str, job: str, name: str | None, folder: Path, options: Sequence[str] = (), *, limit: float = 120
) -> Answer:
    """Ask forge about the text of a job, whose relative paths start at a folder. Mistakes name the job by its name.

    Args:
        command: ``plan`` or ``data``.
        job: The text.
        name: What the job's file is called.
        folder: Where relative paths start.
        options: Further options of the command.
        limit: Seconds after which it is ended.
    """
    with tempfile.TemporaryDirectory(prefix="forge-serve-", ignore_cleanup_errors=True) as temporary:
        file = Path(temporary) / f"{stem(name)}.toml"
        file.write_text(job, encoding="utf-8", newline="\n")
        answer = await ask([command, str(file), f"--job-dir={folder}", "--json", *options], cwd=folder, limit=limit)
    if answer.error is not None:
        shown = json.dumps(answer.error).replace(json.dumps(str(file))[1:-1], file.name)
        return Answer(error=json.loads(shown))
    return answer


def job_error(name: str, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return mistakes of a job as JSON data, as forge's own commands tell them."""
    return JobError(f"{stem(name)}.toml", problems).to_json()
