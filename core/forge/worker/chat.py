"""The process that holds a model for a chat: ``python -m forge.worker.chat RUN PLAN``.

:mod:`forge.parent.chat` speaks to it. It reads the run folder and writes nothing there, so a run may be talked to by
several at once, and from an archive.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from forge.api.code import know_code
from forge.api.generation import Answer, Sampling
from forge.api.plan import Answers
from forge.api.run import Run
from forge.disk.folder import RunFolder
from forge.errors import ForgeError, told_by
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.masking import mask_output
from forge.worker.faults import log_traceback
from forge.worker.imports import check_imports, preload
from forge.worker.perform import machine_fault
from forge.worker.sink import Sink
from forge.worker.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api.event import Event
    from forge.api.generation import Generator


class Talk:
    """Reads questions, in a thread that also hears when an answer is to end, and writes answers.

    Args:
        questions: Where lines come from.
        answers: Where lines go.
    """

    def __init__(self, questions: BinaryIO, answers: BinaryIO) -> None:
        self.questions, self.answers = questions, answers
        self.asked: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.stop = threading.Event()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def write(self, **message: Any) -> None:
        """Send one message."""
        self.answers.write(json.dumps(message).encode() + b"\n")
        self.answers.flush()

    def _listen(self) -> None:
        for line in self.questions:
            message = json.loads(line)
            if message.get("stop"):
                self.stop.set()
            else:
                self.stop.clear()
                self.asked.put(message)
        self.stop.set()
        self.asked.put(None)  # the parent is gone


def serve(talk: Talk, generator: Generator) -> None:
    """Answer until the parent is gone; a question that cannot be answered does not end the talk."""
    talk.write(kind="ready", sampling=asdict(generator.sampling), advice=generator.advice)
    while (question := talk.asked.get()) is not None:
        try:
            answer(talk, generator, question)
        except ForgeError as error:
            talk.write(kind="failed", error=error.to_json())
        except Exception as error:  # noqa: BLE001 - the next question may well be answered
            log_traceback()
            what = ForgeError("the answer failed", told_by(error), "the traceback is in the log")
            talk.write(kind="failed", error=what.to_json())


def answer(talk: Talk, generator: Generator, question: Mapping[str, Any]) -> None:
    """Answer one question."""
    start, said = time.monotonic(), ""
    stream = generator.chat(question["ask"], Sampling(**question["sampling"]))
    end = Answer("", 0, finished=False)
    while True:
        try:
            text = next(stream)
        except StopIteration as done:
            end = done.value or end
            break
        said += text
        talk.write(kind="text", text=text)
        if talk.stop.is_set():
            stream.close()
            break
    seconds = round(time.monotonic() - start, 3)
    talk.write(kind="end", text=said, tokens=end.tokens, finished=end.finished, seconds=seconds)


def main(arguments: list[str]) -> int:
    """Load the plan's model, tell the parent, and answer it."""
    # What libraries print must not get between the lines of the protocol, and what they start must not read them.
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    talk = Talk(questions, answers)
    mask_output()
    try:
        folder, plan = RunFolder(Path(arguments[0])), Answers.read(Path(arguments[1]))
        sink = Sink(_Printed())
        run = Run(folder=folder.path, plan=plan, sink=sink)
        trained = folder.weights_or_refuse()
        know_code(folder.code(plan))
        preload(plan)
        sink.admit(run)
        generator = Stages(run, settle(load_job(plan.job), plan.decisions)).generate(trained, plan.models[0])
        check_imports(plan)
    except BaseException as error:  # noqa: BLE001 - the parent shows it, whatever it is
        log_traceback()
        fault = machine_fault(error, RunFolder(Path(arguments[0])))
        known = fault or (error if isinstance(error, ForgeError) else None)
        what = known or ForgeError("the model cannot be loaded", told_by(error), "see the log")
        talk.write(kind="failed", error=what.to_json())
        return what.exit_code
    serve(talk, generator)
    return 0


class _Printed:
    """Events of a chat: they stand in its log, for it writes nothing into the run."""

    def append(self, event: Event) -> None:
        """Print one."""
        print(f"{event.kind}: {json.dumps(dict(event.values), default=str)}", file=sys.stderr, flush=True)  # noqa: T201 - the log


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # the thread that listens is inside a read, and would keep the interpreter from ending
