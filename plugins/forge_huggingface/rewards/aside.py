"""Work on answers that may take for ever, in a process beside this one that ends when its time is over.

A regular expression may backtrack without end, a number may be too large to write down, a schema may refer to itself:
nothing in the same process can stop these, whatever thread it is in and whatever signal is sent. The process is started
once, serves all rewards of this one, and is started anew when it had to end. It ends itself, also where this one has
been killed.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import importlib
import json
import os
import subprocess
import sys
import threading
from typing import IO, Any

MEMORY = 4 * 2**30
"""Bytes of address space that the work may take, on Linux."""


class TooLongError(Exception):
    """Work was not done in its time, or ended the process that did it."""


class WorkError(Exception):
    """Work raised something; the message says what."""


class _Helper:
    """The process, and what is said to it. It may be asked from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, work: str, seconds: float, *given: Any) -> Any:
        """See the function of that name."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            question = json.dumps([work, seconds, given]).encode() + b"\n"
            with contextlib.suppress(OSError):
                process.stdin.write(question)
                process.stdin.flush()
            said = process.stdout.readline()
            if not said.endswith(b"\n"):
                self.end()
                raise TooLongError
        answer, error = json.loads(said)
        if error is not None:
            raise WorkError(error)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, started if it does not run, or is that of a process which this one was forked from."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
        return self._process

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is not None and self._owner == os.getpid():
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what was not written is not wanted
                    stream.close()  # type: ignore[union-attr]
            self._process.wait()
        self._process = None


_HELPER = _Helper()
atexit.register(_HELPER.end)


def ask(work: str, seconds: float, *given: Any) -> Any:
    """Have work done.

    Args:
        work: A function, as ``"package.module:name"``. What its module imports does not count to its time.
        seconds: Its time by the clock.
        given: What it is given, and returns something alike: what JSON has.

    Raises:
        TooLongError: It takes longer, or ends its process.
        WorkError: It raises something.
    """
    return _HELPER.ask(work, seconds, *given)


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there are no more questions."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - nothing to do with paths
        for line in questions:
            work, seconds, given = json.loads(line)
            module, _, name = work.partition(":")
            function = getattr(importlib.import_module(module), name)
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            answer, error = None, None
            try:
                answer = function(*given)
            except Exception as caught:  # noqa: BLE001 - whatever it is, it goes back to who has asked
                error = f"{type(caught).__name__}: {caught}"[:1000]
            faulthandler.cancel_dump_traceback_later()
            answers.write(json.dumps([answer, error]).encode() + b"\n")
            answers.flush()


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
