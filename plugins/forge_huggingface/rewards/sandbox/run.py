"""Running programs that a model wrote: each in a process, a folder and limits of its own.

:mod:`.jail` is the process; this is the side that starts it, reads what it says, and ends it when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge_huggingface.rewards.sandbox import folders, jail
from forge_huggingface.rewards.sandbox.calls import calls_filter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MIB = 2**20
MAX_OUTPUT = MIB
"""Bytes of output after which a program is ended."""

FILE_SIZE = 16 * MIB
"""Bytes that one file of a program may have."""

MAX_ERRORS = 4000
"""Characters of the standard error that are kept."""

STARTING = 1.0
"""Seconds that a program gets beside its own, for the interpreter to start."""

_TICK = 0.2  # seconds between two looks at what a program has made

Ended = Literal["done", "time", "output", "files", "crash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: Time by the clock, and of processor time.
        memory: Bytes of address space, the interpreter's own (about 30 MiB) included.
        network: Whether it may open sockets.
    """

    seconds: float
    memory: int
    network: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a process.

    Attributes:
        ended: ``"done"``; ``"time"``, ``"output"``, ``"files"`` for a limit; ``"crash"`` for any other end.
        output: What it wrote to its standard output, text or report.
        errors: The last of what it wrote to its standard error.
        code: Its exit code, below 0 for a signal.
    """

    ended: Ended
    output: str
    errors: str
    code: int


def run_tests(program: str, tests: Sequence[str], limits: Limits) -> tuple[Outcome, list[dict[str, Any] | None]]:
    """Run a program and then its tests in the same process.

    Returns:
        What became of the process, and what it reported before that: the program itself first, then each test, with
        ``None`` for what went well, or else ``type``, ``message`` and ``line`` of the error.
    """
    secret = secrets.token_hex(16)
    outcome = _start({"mode": "tests", "program": program, "tests": list(tests), "secret": secret}, limits)
    return outcome, _reports(outcome, secret, 1 + len(tests))


def run_script(program: str, given: str, limits: Limits) -> Outcome:
    """Run a program with something on its standard input; ``output`` is what it printed."""
    return _start({"mode": "script", "program": program, "secret": ""}, limits, given)


def _reports(outcome: Outcome, secret: str, most: int) -> list[dict[str, Any] | None]:
    """Read the lines that only the jail can have written, up to one that is cut off or garbled."""
    found: list[dict[str, Any] | None] = []
    for line in outcome.output.splitlines(keepends=True):
        if line.startswith(secret) and line.endswith("\n"):
            try:
                report = json.loads(line.removeprefix(secret))
            except (ValueError, RecursionError):
                break
            if not _is_report(report) or len(found) == most:
                break
            found.append(report)
    return found


def _is_report(report: Any) -> bool:
    return report is None or (
        isinstance(report, dict)
        and isinstance(report.get("type"), str)
        and isinstance(report.get("message"), str)
        and isinstance(report.get("line"), int | None)
    )


def _start(spec: Mapping[str, Any], limits: Limits, given: str = "") -> Outcome:
    """Run a program, once more if it was asked to end: a cluster that stops a job asks all of its processes.

    forge saves and stops then, after the step, and what the program answers is a part of that.
    """
    outcome = _run(spec, limits, given)
    return _run(spec, limits, given) if outcome.code == -signal.SIGTERM else outcome


def _run(spec: Mapping[str, Any], limits: Limits, given: str) -> Outcome:
    """Start a jail and see it to its end."""
    with folders.folder() as around:
        inside, file = around / "program", around / "spec"
        inside.mkdir()
        whole = {
            **spec,
            "parent": os.getpid(),
            "network": limits.network,
            "calls": calls_filter(platform.machine(), network=limits.network),
            "memory": limits.memory,
            "seconds": int(limits.seconds + 0.999),
            "file_size": FILE_SIZE,
        }
        file.write_bytes(marshal.dumps(whole))
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", jail.__file__, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=inside,
            env=_environment(str(inside)),
            start_new_session=True,
        )
        return _watch(process, given.encode(errors="replace"), limits.seconds, inside)


def _environment(folder: str) -> dict[str, str]:
    """Return an environment without anything of this process's: tokens are in it."""
    kept = {"SYSTEMROOT": os.environ["SYSTEMROOT"]} if sys.platform == "win32" else {}  # nothing starts without it
    # Libraries of linear algebra reserve memory for each thread.
    return {**kept, "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _watch(process: subprocess.Popen[bytes], given: bytes, seconds: float, inside: Path) -> Outcome:
    """Feed a process, read it, and end it when it takes too long, says too much or fills the disk."""
    said: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    too_much = threading.Event()

    def feed() -> None:
        with contextlib.suppress(OSError):  # it need not read what it is given
            process.stdin.write(given)  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]

    def read(name: str) -> None:
        with getattr(process, name) as stream:
            while chunk := stream.read1(65536):
                said[name] += chunk
                if len(said[name]) > MAX_OUTPUT:
                    too_much.set()
                    _kill(process)
                    return

    threads = [threading.Thread(target=read, args=(name,), daemon=True) for name in said]
    threads += [threading.Thread(target=feed, daemon=True)]
    for thread in threads:
        thread.start()
    limit: Ended | None = None
    try:
        limit = _wait(process, threads[0], time.monotonic() + seconds + STARTING, inside)
    finally:
        _kill(process)
        process.wait()
    for thread in threads:  # a child that has left the group may hold a pipe open
        thread.join(1)
    code = process.returncode
    if sys.platform != "win32" and code == -signal.SIGXCPU:
        limit = "time"
    ended: Ended = "output" if too_much.is_set() else limit or ("done" if code == 0 else "crash")
    output, errors = (said[name].decode("utf-8", "replace") for name in said)
    return Outcome(ended, output, errors[-MAX_ERRORS:], code)


def _wait(
    process: subprocess.Popen[bytes], output: threading.Thread, until: float, inside: Path
) -> Literal["time", "files"] | None:
    """Wait for the end of a process; return the limit that it has come to, if it has."""
    while (left := until - time.monotonic()) > 0:
        output.join(
            min(_TICK, left)
        )  # what has said its last is about to end; waiting for that only looks now and then
        if output.is_alive():
            if process.poll() is not None:
                return None
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(_TICK, left))
                return None
        if folders.overfull(inside):
            return "files"
    return "time"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started; no error if it has ended by itself."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
