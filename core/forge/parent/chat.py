"""Talking to a model in another process: the parent's side, and the protocol.

The model is loaded by ``python -m forge.worker.chat``, for the same reasons for which training has a worker. Both sides
write one JSON object a line, the parent to the worker's standard input, the worker to what was its standard output when
it began; what libraries print goes to the run's log.

To the worker: ``{"ask": [messages], "sampling": {…}}`` asks, ``{"stop": true}`` ends the answer, and the end of the
input ends everything. From it: ``{"kind": "ready", "sampling", "advice"}``, then for each question
``{"kind": "text", "text"}`` as it comes, and ``{"kind": "end", "text", "tokens", "finished", "seconds"}`` or
``{"kind": "failed", "error"}``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from forge.api.generation import Sampling
from forge.errors import ModelDied, from_json
from forge.parent.process import death, environment_of, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType, TracebackType

    from forge.disk.folder import RunFolder


class Chat:
    """A model that answers, in a process of its own.

    Args:
        folder: The run.
        plan: The plan's file; it is read when the process starts.
        log: Where the process prints to.

    Attributes:
        sampling: How the model is meant to answer.
        advice: Where that comes from.

    Raises:
        ForgeError: The model cannot be loaded.
    """

    def __init__(self, folder: RunFolder, plan: Path, log: Path) -> None:
        self.log = log
        environment, _ = environment_of(folder, plan)
        with log.open("ab") as printed:  # in a group of its own: Ctrl-C ends an answer, not the model
            self._worker = start("forge.worker.chat", folder, plan, environment, stdout=subprocess.PIPE, stderr=printed)
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.sampling = Sampling(**ready["sampling"])
        self.advice: str = ready["advice"]

    def ask(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling, show: Callable[[str], None]
    ) -> dict[str, Any]:
        """Ask, show the answer as it comes, and return its end: ``text``, ``tokens``, ``finished``, ``seconds``.

        Ctrl-C ends the answer, and what was said until then is returned; a second one raises ``KeyboardInterrupt``.

        Raises:
            ForgeError: The question cannot be answered, or the model's process died.
        """
        self._write({"ask": list(messages), "sampling": asdict(sampling)})
        with self._stopping() as wishes:
            while (message := self._read())["kind"] != "end":
                show(message["text"])
        return {**message, "stopped": bool(wishes)}

    @contextmanager
    def _stopping(self) -> Iterator[list[int]]:
        """Turn Ctrl-C into a word to the worker; an exception would lose the half of a line that has been read."""
        wishes: list[int] = []

        def stop(number: int, frame: FrameType | None) -> None:
            wishes.append(number)
            if len(wishes) > 1:
                signal.default_int_handler(number, frame)
            self._write({"stop": True})

        if threading.current_thread() is not threading.main_thread():
            yield wishes
            return
        before = signal.signal(signal.SIGINT, stop)
        try:
            yield wishes
        finally:
            signal.signal(signal.SIGINT, before)

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            if self._worker.stdin:
                self._worker.stdin.close()
        try:
            self._worker.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()
        if self._worker.stdout:
            self._worker.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._worker.stdin is not None
        try:
            self._worker.stdin.write(json.dumps(message).encode() + b"\n")
            self._worker.stdin.flush()
        except OSError:
            raise self._died() from None

    def _read(self) -> dict[str, Any]:
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        message: dict[str, Any] = json.loads(line)
        if message["kind"] == "failed":
            raise from_json(message["error"])
        return message

    def _died(self) -> ModelDied:
        end = death(self._worker.wait())
        return ModelDied(f"the model's process ended ({end.how})", end.why, f"see {self.log}")
