"""Calling a target's own command-line tool, and following a file that it writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from forge.api import ForgeError, MachineError, masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SECONDS = 120.0
"""How long a tool may take to answer; one that waits for a queue is not waited for."""


def is_there(tool: str) -> bool:
    """Whether a command-line tool is installed."""
    return shutil.which(tool) is not None


def call(command: Sequence[str], text: str | None = None, seconds: float = SECONDS) -> tuple[int, str, str]:
    """Run a tool and return its exit code, standard output and standard error.

    Args:
        command: The tool and its arguments.
        text: What it reads on its standard input.
        seconds: How long it may take.

    Raises:
        ForgeError: It is not there.
        MachineError: It gives no answer.
    """
    try:
        ended = subprocess.run(
            list(command), input=text or "", capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except FileNotFoundError:
        raise ForgeError(f"{command[0]} is not installed here", do="look for it on the machine of the target") from None
    except subprocess.TimeoutExpired:
        raise MachineError(f"{command[0]} gave no answer within {seconds:.0f} seconds") from None
    return ended.returncode, ended.stdout, ended.stderr


def answer(command: Sequence[str], seconds: float = SECONDS) -> str:
    """Run a tool and return what it printed. Raises :class:`ForgeError` with its own words if it fails."""
    code, out, error = call(command, seconds=seconds)
    if code:
        raise ForgeError(f"{' '.join(command[:2])} failed", masked(said(error or out)) or f"it ended with code {code}")
    return out


def stream(command: Sequence[str]) -> Iterator[str]:
    """Yield what a tool prints, line by line, until it ends or nobody wants more.

    Raises:
        ForgeError: It failed without a word. With words, its code tells how the job did that it tells of.
    """
    told = False
    with subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                told = True
                yield line.rstrip("\n")
            process.wait()
        finally:
            process.kill()
    if process.returncode and not told:
        raise ForgeError(f"{' '.join(command[:2])} failed", f"it ended with code {process.returncode}")


def said(text: str) -> str:
    """Return what a tool printed as a phrase: its lines in one, without its own name before each."""
    lines = [re.sub(r"^\w+: (?:error: )?", "", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(line.rstrip(".") for line in lines)[:500]


def lines_of(file: Path, *, follow: bool, over: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of a file that grows; with ``follow`` until ``over()`` is true, asked every few seconds."""
    position, rest, asked = 0, b"", 0.0
    ended = not follow
    while True:
        if file.exists():
            with file.open("rb") as opened:
                opened.seek(position)
                *lines, rest = (rest + opened.read()).split(b"\n")
                position = opened.tell()
            yield from (line.decode(errors="replace") for line in lines)
        if ended:
            if rest:
                yield rest.decode(errors="replace")
            return
        if time.monotonic() - asked > 3:
            ended, asked = over(), time.monotonic()  # then it is read once more
            if ended:
                continue
        time.sleep(0.3)
