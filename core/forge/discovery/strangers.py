"""Asking plugins of others in processes of their own, so that none can harm the one that plans, or another.

The first process is started when there is a question, and anew after a plugin has ended it. A plugin that takes long is
named, and one that takes too long is not waited for.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.discovery.guard import NoAnswer
from forge.errors import UsageError
from forge.errors import from_json as error_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from forge.discovery.installed import Found

NAMED_AFTER = 5.0
"""Seconds after which a plugin that has not answered is named."""

LIMIT = 15.0
"""Seconds after which it is not waited for; ``FORGE_PLUGIN_SECONDS`` says another number."""


_START = 60.0
"""Seconds that the process may take to start: on a machine that has much to do it takes some."""


class Strangers:
    """The process in which plugins of others are asked, one at a time."""

    def __init__(self) -> None:
        self.limit = _limit()
        self._asked: tuple[str, str] | None = None
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._end: Any = None
        self._lost: dict[tuple[str, str], NoAnswer] = {}

    def ask(self, found: Found, what: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a plugin and return its answer.

        Args:
            found: The plugin.
            what: What it is asked, as a phrase, for who waits.
            question: The question, as :class:`forge.discovery.asking.Desk` takes it.

        Raises:
            NoAnswer: It raised something, ended the process, or took too long.
            ForgeError: It raised that.
        """
        if lost := self._lost.get((found.point.name, what)):  # it would be waited for as long again
            raise lost
        whole = {**question, "name": found.point.name, "value": found.point.value, "path": sys.path}
        whole |= {"distribution": "=".join(found.source), "code": found.code}
        try:
            if self._asked not in {None, found.source}:  # what one plugin did to its process is nothing to the next
                self._leave(found)
            self._asked = found.source
            answer = self._exchange(found, what, whole)
        except NoAnswer as error:
            self._lost[found.point.name, what] = error
            raise
        if "refusal" in answer:
            raise error_from_json(answer["refusal"])
        if "error" in answer:
            raise NoAnswer(answer["error"])
        return answer

    def _exchange(self, found: Found, what: str, whole: Mapping[str, Any]) -> dict[str, Any]:
        process = self._started()
        self._number += 1
        with suppress(queue.Empty):  # what a plugin wrote, and how it ended, when nothing had been asked
            while self._answers.get_nowait().endswith(b"\n"):
                pass
            self._answers.put(b"")
        assert process.stdin is not None
        with suppress(OSError):  # it has ended already, and its answers tell so
            process.stdin.write(base64.b64encode(pickle.dumps({**whole, "number": self._number})) + b"\n")
            process.stdin.flush()
        answer = self._waited(found, what, process)
        if "ended" in answer:
            raise NoAnswer(_ending(answer["ended"]))
        return answer

    def _leave(self, found: Found) -> None:
        if self._process is not None and hasattr(os, "fork"):
            with suppress(NoAnswer):  # the next question starts it anew
                self._exchange(found, "the one before it is left", {"do": "leave"})
        else:
            self.close()

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end()
        self._process = self._end = self._asked = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, "-P", "-m", "forge.discovery.asking"]
            shown = None if os.environ.get("FORGE_DEBUG", "") not in {"", "0"} else subprocess.DEVNULL
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=shown, start_new_session=True)
            self._answers = queue.Queue()
            assert self._process.stdout is not None
            threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True).start()
            self._end = weakref.finalize(self, _ended, self._process)
            # How long that takes is no plugin's matter; what is wrong with it, the next question tells.
            with suppress(queue.Empty):
                while b'"ready"' not in (line := self._answers.get(timeout=_START)) and line:
                    pass
                if not line:
                    self._answers.put(line)
        return self._process

    def _waited(self, found: Found, what: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Return the answer to the last question; whatever else a plugin may have written there is passed over."""
        began, until = time.monotonic(), min(NAMED_AFTER, self.limit)
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, began + until - time.monotonic()))
            except queue.Empty:
                if until < self.limit:
                    name, version = found.source
                    told = f"waiting for plugin {found.point.name} ({name} {version}): {what}"
                    print(told, file=sys.stderr, flush=True)  # noqa: T201 - somebody waits
                    until = self.limit
                    continue
                self.close()
                raise NoAnswer(f"it gave no answer within {self.limit:g} seconds") from None
            if not line.endswith(b"\n"):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                code = process.returncode
                self.close()
                raise NoAnswer("it closed the way by which it answers" if code is None else _ending(code))
            answer = None
            with suppress(ValueError):
                answer = json.loads(line)
            if isinstance(answer, dict) and ("ended" in answer or answer.get("number") == self._number):
                return answer


def _ending(code: int) -> str:
    how = f"code {code}" if code >= 0 else f"signal {-code}"
    return f"it ended the process that asked it, with {how}"


def _limit() -> float:
    said = os.environ.get("FORGE_PLUGIN_SECONDS") or LIMIT
    try:
        limit = float(said)
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1e6:
        what = f"FORGE_PLUGIN_SECONDS={said} cannot be used"
        raise UsageError(what, "it is no number of seconds", "write FORGE_PLUGIN_SECONDS=60, or unset it")
    return limit


def _read(stream: IO[bytes], answers: queue.Queue[bytes]) -> None:
    with stream:  # only here, since to close it waits for who reads it
        for line in stream:
            answers.put(line)
    answers.put(b"")


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None and hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # with what plugins have started
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


_RECORDS = {
    "Problem": "forge.errors:Problem",
    "Finding": "forge.api.offer:Finding",
    "Decision": "forge.job.decisions:Decision",
    "Estimate": "forge.api.estimate:Estimate",
    "Pace": "forge.api.pace:Pace",
    "ModelFacts": "forge.model.facts:ModelFacts",
}
"""What a plugin's functions may return."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A function of a plugin, called in the other process: of its offer of an index, its hook (-1), or by its name.

    Example:
        ``Remote(strangers, found, 0, "probe")(machine, job, facts)``
    """

    strangers: Strangers
    found: Found
    index: int
    function: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it with copies of the arguments. Raises as :meth:`Strangers.ask` does."""
        question: dict[str, Any] = {"do": "call", "index": self.index, "function": self.function}
        if ":" in self.function:
            question = {"do": "reference", "reference": self.function}
        question |= {"arguments": arguments, "options": options}
        answer = self.strangers.ask(self.found, f"its {self.function}", question)
        return [_rebuilt(each) for each in answer["several"]] if "several" in answer else _rebuilt(answer["one"])


class Other:
    """Something that a function returned and that forge has no use for: its type's name is all that is known."""


def _rebuilt(said: Mapping[str, Any]) -> Any:
    from forge import records  # only what is asked at planning pays for it
    from forge.api.reference import load_object

    if said["kind"] in _RECORDS and "value" in said:
        kind: Any = load_object(_RECORDS[said["kind"]])
        return records.from_json(kind, said["value"])
    return said["value"] if "value" in said else type(said["kind"], (Other,), {})()
