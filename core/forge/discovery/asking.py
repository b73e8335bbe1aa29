"""The process in which plugins of others are asked: ``python -m forge.discovery.asking``.

Whatever such a plugin does to its process while forge plans, it does to one of its own: it may end it, hang in it,
print, fork, import what it likes, or change what it finds there. :mod:`forge.discovery.strangers` asks, by a line for
each question, and gets a line for each answer. Where there is ``fork``, this process never imports a plugin, but a copy
of it does, which is left when another plugin is asked.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import queue
import signal
import sys
import sysconfig
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from forge import records
from forge.api.code import know_code
from forge.api.deprecated import heard
from forge.api.hooks import API
from forge.api.reference import load_object
from forge.discovery.calls import taken
from forge.discovery.faults import MOST
from forge.discovery.guard import import_guard
from forge.discovery.loading import load
from forge.discovery.told import Told
from forge.errors import ForgeError, told_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api.offer import Extension, Offer


class Desk:
    """Answers questions about plugins, each of which is imported once."""

    def __init__(self) -> None:
        self.loaded: dict[str, Told] = {}
        self.files: dict[str, set[str]] = {}

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one question; what the plugin raises is an answer too."""
        try:
            found: dict[str, Any] = getattr(self, f"on_{question['do']}")(question)
        except ForgeError as error:
            return {"refusal": error.to_json()}
        except BaseException as error:  # noqa: BLE001 - this process is there for it
            return {"error": told_by(error)}
        return found

    def on_describe(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Say what a plugin offers, whether its keys can be used, and which files that depends on."""
        before = set(sys.modules)
        told = self._told(question)
        with heard() as old:
            fault = _keys_fault(told) if told.reason is None else None
        told = Told(fault) if fault else replace(told, deprecated=(*told.deprecated, *old))
        if (size := len(json.dumps(told.to_json()))) > _LARGEST:
            told = Told(f"says {size >> 20} MiB of itself; 1 MiB is the most")
        top = question["value"].partition(":")[0].partition(".")[0]
        files = self.files.setdefault(question["distribution"], set())
        for name, module in list(sys.modules.items()):
            if name not in before or name.partition(".")[0] == top:
                files |= _file_of(module)
        return {"told": told.to_json(), "files": sorted(files)}

    def on_call(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function of one of a plugin's offers, or its hook."""
        told, index, name = self._told(question), question["index"], question["function"]
        if told.reason is not None:
            raise ImportError(told.reason)
        function: Any = told.function(index, name)
        return _result(function, {**question, "options": taken(function, question["options"])})

    def on_reference(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function by its name."""
        if question["code"] is not None:
            know_code([question["code"]])
        with import_guard():
            function = load_object(question["reference"])
        return _result(function, question)

    def _told(self, question: Mapping[str, Any]) -> Told:
        name, value = question["name"], question["value"]
        if question["code"] is not None:
            know_code([question["code"]])
        key = f"{name}={value}"
        if key not in self.loaded:
            self.loaded[key] = load(EntryPoint(name, value, API))
        return self.loaded[key]


def _result(function: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    with import_guard():
        found = function(*question["arguments"], **question["options"])
        several = not isinstance(found, str) and isinstance(found, Iterable)
        if not several:
            return {"one": _said(found)}
        said = [_said(each) for each in islice(found, MOST + 1)]
        if len(said) > MOST:
            raise ValueError(f"it yields more than {MOST} records")
        return {"several": said}


def _keys_fault(told: Told) -> str | None:
    """Return what is wrong with the models of a plugin's keys, or None."""
    wanted = [(offer.options, offer.stage, word) for offer in told.offers if offer.options for word in offer.serves]
    described: tuple[Offer | Extension, ...] = (*told.offers, *told.extensions)
    configs = {item.config for item in described if item.config}
    if not wanted and not configs:
        return None
    from forge.discovery.keys import checked_model, default_fault, options_fault  # they need pydantic

    for reference, stage, word in wanted:
        try:
            model = checked_model(reference, word)
            if fault := options_fault(stage, model) or default_fault(model):
                return fault
        except BaseException as error:  # noqa: BLE001 - a stranger's module may raise anything
            return f"names {reference}, which cannot be used: {told_by(error)}"
    for reference in sorted(configs):
        try:
            if fault := default_fault(checked_model(reference)):
                return fault
        except BaseException as error:  # noqa: BLE001
            return f"names {reference}, which cannot be used: {told_by(error)}"
    return None


def _file_of(module: object) -> set[str]:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or (file.startswith((_FORGE, _STDLIB)) and "site-packages" not in file):
        return set()
    return {file}


_LARGEST = 1 << 20
"""Bytes of JSON that a plugin may say of itself: every command reads what was remembered of it."""

_FORGE, _STDLIB = str(Path(__file__).parents[1]), sysconfig.get_paths()["stdlib"]


def _said(value: Any) -> dict[str, Any]:
    """Return what a function returned: its type, and the value where that is a record of forge's or nothing much."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool | int | float | str):
        return {"kind": kind, "value": value}
    known = type(value).__module__.startswith("forge.")
    return {"kind": kind, "value": records.to_json(value)} if known else {"kind": kind}


def main() -> None:
    """Answer until the other end is closed."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as in forge.cli
    answers, questions = os.fdopen(os.dup(1), "wb", buffering=0), os.fdopen(os.dup(0), "rb")
    with Path(os.devnull).open("r+b") as nothing:  # what a plugin prints is nobody's, and it is asked by no one else
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    import_module("forge.discovery.keys")  # most plugins need it, with pydantic: its import is not to count as theirs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent ends this process
    _write(answers, {"ready": os.getpid()})
    if not hasattr(os, "fork"):
        _serve(questions, answers)
    while line := questions.readline():
        if (copy := os.fork()) == 0:
            os.register_at_fork(after_in_child=answers.close)  # a copy that a plugin makes has nothing to answer
            try:
                _serve(questions, answers, line)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        with suppress(OSError):  # nobody waits for it
            _write(answers, {"ended": code})


def _serve(questions: BinaryIO, answers: BinaryIO, first: bytes | None = None) -> NoReturn:
    """Answer about one plugin, until another one is asked or the other end is closed."""
    lines: queue.Queue[bytes] = queue.Queue()
    if first is not None:
        lines.put(first)
    threading.Thread(target=_listen, args=(questions, lines), name="parent", daemon=True).start()
    desk = Desk()
    while True:
        question = pickle.loads(base64.b64decode(lines.get()))  # noqa: S301 - from the process that started this one
        if question["do"] == "leave":
            os._exit(0)
        sys.path[:] = question["path"]
        _write(answers, desk.answer(question) | {"number": question["number"]})


def _write(answers: BinaryIO, answer: Mapping[str, Any]) -> None:
    answers.write(b"\n" + json.dumps(answer).encode() + b"\n")  # a plugin may have written before, without an end


def _listen(questions: BinaryIO, lines: queue.Queue[bytes]) -> None:
    for line in questions:
        lines.put(line)
    os._exit(0)  # the parent is gone, and a plugin may hang


if __name__ == "__main__":
    main()
