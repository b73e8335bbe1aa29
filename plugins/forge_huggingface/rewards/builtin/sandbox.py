"""Running programs that a model wrote: each in a process, a folder and limits of its own.

:mod:`.jail` is the process; this is the side that starts it, reads what it says, and ends it when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge.api import UsageError
from forge_huggingface.rewards.builtin import jail

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

Ended = Literal["done", "time", "output", "crash"]


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
        ended: ``"done"``; ``"time"``, ``"output"`` for a limit; ``"crash"`` for any other end.
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
    return outcome, _reports(outcome, secret)


def run_script(program: str, given: str, limits: Limits) -> Outcome:
    """Run a program with something on its standard input; ``output`` is what it printed."""
    return _start({"mode": "script", "program": program, "secret": ""}, limits, given)


def check(limits: Limits) -> list[str]:
    """Try the sandbox on this machine.

    Returns:
        What it cannot do here, as phrases; no network is not among them.

    Raises:
        UsageError: The network cannot be cut off, and the limits say that it must be; or no program can run.
    """
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as outside:
        spec = {"mode": "look", "program": "", "secret": secret, "outside": str(Path(outside, "written"))}
        outcome = _start(spec, limits)
    reports = _reports(outcome, secret)
    if not reports or reports[0] is None:
        why = f"exit code {outcome.code}: {outcome.errors.strip()[-300:] or outcome.ended}"
        raise UsageError("programs cannot be run here", why, "raise memory in its args, or see what the system forbids")
    can = reports[0]["can"]
    open_ = [name for name in ("ipv4", "ipv6", "unix") if can[name]]
    if open_ and not limits.network:
        raise UsageError(
            "what the model writes cannot be cut off from the network here",
            f"it could open sockets ({', '.join(open_)}): this needs Linux on x86_64 or aarch64 with seccomp",
            "run it where that is, or accept it with args = { allow_network = true }",
        )
    notes = []
    if can["outside"]:
        notes.append("files outside its folder cannot be protected here (Landlock, Linux 5.13 or newer, is missing)")
    if not reports[0]["refused"]:
        notes.append("it may start further processes, which seccomp would refuse")
    if sys.platform != "linux":
        notes.append(f"its memory cannot be limited on {sys.platform}")
    return notes


def _reports(outcome: Outcome, secret: str) -> list[dict[str, Any] | None]:
    """Read the lines that only the jail can have written, up to one that is cut off or garbled."""
    found = []
    for line in outcome.output.splitlines(keepends=True):
        if line.startswith(secret) and line.endswith("\n"):
            try:
                found.append(json.loads(line.removeprefix(secret)))
            except ValueError:
                break
    return found


def _start(spec: Mapping[str, Any], limits: Limits, given: str = "") -> Outcome:
    """Start a jail and see it to its end."""
    with tempfile.TemporaryDirectory(prefix="forge-program-", ignore_cleanup_errors=True) as folder:
        file = Path(folder, "spec.json")
        whole = {
            **spec,
            "network": limits.network,
            "memory": limits.memory,
            "seconds": int(limits.seconds + 0.999),
            "file_size": FILE_SIZE,
        }
        file.write_text(json.dumps(whole), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", jail.__file__, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        return _watch(process, given.encode(), limits.seconds)


def _environment(folder: str) -> dict[str, str]:
    """Return an environment without anything of this process's: tokens are in it."""
    kept = {"SYSTEMROOT": os.environ["SYSTEMROOT"]} if sys.platform == "win32" else {}  # nothing starts without it
    # Libraries of linear algebra reserve memory for each thread.
    return {**kept, "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _watch(process: subprocess.Popen[bytes], given: bytes, seconds: float) -> Outcome:
    """Feed a process, read it, and end it when it takes too long or says too much."""
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

    threads = [threading.Thread(target=feed, daemon=True)]
    threads += [threading.Thread(target=read, args=(name,), daemon=True) for name in said]
    for thread in threads:
        thread.start()
    late = False
    try:
        process.wait(seconds + STARTING)
    except subprocess.TimeoutExpired:
        late = True
    finally:
        _kill(process)
        process.wait()
    for thread in threads:  # a child that has left the group may hold a pipe open
        thread.join(1)
    code = process.returncode
    late = late or (sys.platform != "win32" and code == -signal.SIGXCPU)
    ended: Ended = "output" if too_much.is_set() else "time" if late else "done" if code == 0 else "crash"
    output, errors = (said[name].decode("utf-8", "replace") for name in said)
    return Outcome(ended, output, errors[-MAX_ERRORS:], code)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started; no error if it has ended by itself."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
