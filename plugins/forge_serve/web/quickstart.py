"""The quick start for who has no terminal: its script makes its model and its rows, beside the jobs of the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

import forge_serve
from forge_serve.calls import end
from forge_serve.queue.supervisor import clean
from forge_serve.web.bodies import QuickStartBody, taken
from forge_serve.web.problems import Refused, answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from forge_serve.rules import Rules
    from forge_serve.web.server import Server

SCRIPT = "prepare.py"


@dataclass(slots=True)
class Making:
    """What is being made, or what came of it.

    Attributes:
        going: Whether the script runs.
        said: What it said last.
        failed: Whether it ended without having made all.
    """

    going: bool = False
    said: str = ""
    failed: bool = False


def source() -> Path | None:
    """Return the example's folder: in the installed package, or in the checkout that it is worked on in."""
    here = Path(forge_serve.__file__).resolve().parent
    return next((each for each in (here / "quickstart", *_checkout(here)) if (each / SCRIPT).is_file()), None)


def _checkout(here: Path) -> list[Path]:
    return [here.parents[1] / "examples" / "quickstart"] if (here.parents[1] / "pyproject.toml").is_file() else []


def target(rules: Rules, example: Path) -> Path:
    """Return the folder of model and rows: the example's own if the server may use it, else one where jobs start."""
    return example if rules.inside(example) else rules.folder / "quickstart"


def is_made(folder: Path) -> bool:
    """Whether model, rows and measures are there, whole."""
    return all((folder / each).is_file() for each in ("model/model.safetensors", "data/eval.jsonl", "metrics.py"))


def job_of(rules: Rules, example: Path) -> str:
    """Return the example's job with its paths from where the server's jobs start, and no code unless it is allowed."""
    folder = target(rules, example)
    where = folder.relative_to(rules.folder) if folder.is_relative_to(rules.folder) else folder
    metrics = where.as_posix() + "/metrics.py" if where.is_absolute() else f"./{(where / 'metrics.py').as_posix()}"
    changes = {
        'id = "model"': f'id = "{(where / "model").as_posix()}"',
        '"data/train.jsonl"': f'"{(where / "data" / "train.jsonl").as_posix()}"',
        '"data/eval.jsonl"': f'"{(where / "data" / "eval.jsonl").as_posix()}"',
        "./metrics.py:card": f"{metrics}:card",
    }
    if not rules.allow_code:
        changes['["./metrics.py:card"]     # a function of yours; forge has others, such as "json" and "f1"'] = (
            '["json"]     # the share of answers that are JSON; with --allow-code, functions of your own too'
        )
    text = (example / "job.toml").read_text(encoding="utf-8")
    head, name, rest = text.partition('name = "quickstart"')
    for old in sorted(changes, key=len, reverse=True):
        rest = rest.replace(old, changes[old])
    return f"{head.splitlines()[0]}\n{name}{rest}"


def told(server: Server, making: Making) -> dict[str, Any]:
    """Return how far the quick start is, as JSON data."""
    example = source()
    if example is None:
        return {"state": "missing", "said": "this installation of forge came without its examples", "job": None}
    if making.going:
        return {"state": "making", "said": making.said, "job": None}
    if is_made(target(server.rules, example)):
        return {"state": "made", "said": "", "job": job_of(server.rules, example)}
    return {"state": "failed" if making.failed else "absent", "said": making.said, "job": None}


async def show(request: Request) -> Response:
    """Say whether the quick start's model and rows are there, and its job if they are."""
    return answer(await run_in_threadpool(told, server_of(request), request.app.state.making))


async def make(request: Request) -> Response:
    """Begin to make the quick start's model and rows; what is there stays."""
    await taken(request, QuickStartBody)
    server, making = server_of(request), request.app.state.making
    example = source()
    if example is None:
        raise Refused(409, "this installation of forge came without its examples")
    folder = target(server.rules, example)
    if not making.going and not is_made(folder):
        making.going, making.said, making.failed = True, "", False
        server.later(made(making, example, folder))
    return answer(await run_in_threadpool(told, server, making), 202, headers={"location": "/api/v1/quickstart"})


async def made(making: Making, example: Path, folder: Path) -> None:
    """Run the example's script, and keep what it says last."""
    process = None
    try:
        await run_in_threadpool(prepare, example, folder)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(example / SCRIPT),
            f"--folder={folder}",
            cwd=folder,
            env={**clean(os.environ, None), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if text := line.decode("utf-8", "replace").strip():
                making.said = text
        making.failed = await process.wait() != 0
    except OSError as error:
        making.said, making.failed = f"{folder}: {error.strerror or error}", True
    finally:
        making.going = False
        if process is not None and process.returncode is None:
            end(process.pid)


def prepare(example: Path, folder: Path) -> None:
    """Make the folder, with what the job names beside model and rows."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder != example:
        shutil.copyfile(example / "metrics.py", folder / "metrics.py")
