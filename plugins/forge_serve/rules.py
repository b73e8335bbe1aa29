"""What a job may ask for when it comes over the network: paths below the roots, no code of its own, no addresses.

A job is checked value by value, whatever its keys are called, since plugins bring keys of their own. What the user's
own terminal may do, a page may not: a token that leaks should cost rows and weights below the roots, and not the
machine.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from forge.api import Problem, locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Key = tuple[str | int, ...]

MOST_FILES = 200_000
"""Files of a folder, or of a pattern, that are looked at; of more, nobody would wait for the answer."""

_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FILE_OF_CODE = re.compile(r"[^\n]*\.(?:py|pyc|pyw|so|pyd)(?::\w*)?")
_KERNELS = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?(?::\w+)?")
_CODE_KEYS = frozenset({"trust_remote_code"})
_CLOSED = {
    "submit": "a job is sent to other machines from a terminal",
    "environment": "variables of the environment come from the server's own",
    "env": "variables of the environment come from the server's own",
}
_ALLOW = "start the server with --allow-code to allow it"


@dataclass(frozen=True, slots=True)
class Rules:
    """What jobs over the network may do.

    Attributes:
        roots: Folders below which files may be named; relative paths start at the first.
        allow_code: Whether a job may name Python of its own, and code that comes with a model.
    """

    roots: tuple[Path, ...]
    allow_code: bool = False

    @property
    def folder(self) -> Path:
        """Where relative paths of jobs start."""
        return self.roots[0]

    def problems(self, text: str, changes: Sequence[str] = ()) -> list[Problem]:
        """Return what a job asks for that it may not, each with its line; nothing of a text that is no TOML.

        Args:
            text: The job.
            changes: Changes of it, each as ``--set`` takes them.
        """
        try:
            raw = tomli.loads(text)
        except (ValueError, RecursionError):  # forge itself says what is wrong with it
            return []
        found = [(key, fault) for key, value in values_of(raw) if (fault := self.fault(key, value))]
        problems = [Problem(_name(key), what, do, locate(text, key)) for key, (what, do) in found]
        for change in changes:
            name, _, given = change.partition("=")
            key: Key = tuple(int(part) if part.isdecimal() else part for part in name.strip().split("."))
            for inner, value in values_of(_value(given), key):
                if fault := self.fault(inner, value):
                    problems.append(Problem(_name(inner), *fault))
        return problems

    def code_problems(self, text: str) -> list[Problem]:
        """Return what of the code that a job names may not be run for a request: of one that somebody else wrote."""
        try:
            raw = tomli.loads(text)
        except (ValueError, RecursionError):
            return []
        found = []
        for key, value in values_of(raw):
            trusting = key[-1] in _CODE_KEYS and value is not False
            what = "would run Python code that comes with the model" if trusting else None
            if not self.allow_code and (what := what or (_code(key, value) if isinstance(value, str) else None)):
                found.append(Problem(_name(key), what, _ALLOW, locate(text, key)))
        return found

    def fault(self, key: Key, value: object) -> tuple[str, str] | None:
        """Return what is wrong with one value of a job, and what to do; None if it may stand there."""
        for part in key:
            if part in _CLOSED and not isinstance(value, bool):
                return "is not taken over the network", _CLOSED[str(part)]
        if not self.allow_code and key[-1] in _CODE_KEYS and value is not False:
            return "would run Python code that comes with the model", _ALLOW
        if not isinstance(value, str):
            return None
        if "\0" in value:
            return "holds a NUL, which no path or text has", "leave it out"
        if not self.allow_code and (what := _code(key, value)):
            return what, _ALLOW
        if _ADDRESS.match(value) or ("://" in value and not re.search(r"\s", value)):
            return "is an address, and nothing is fetched for a request", "name a file below the roots, or a hub id"
        return self.path_fault(value)

    def path_fault(self, value: str) -> tuple[str, str] | None:
        """Return what is wrong with a text where it is a path, or has one behind a colon: it leads out of the roots."""
        if len(value) > 4096 or "\n" in value:
            return None
        for text in dict.fromkeys([value, *(value[at + 1 :] for at, sign in enumerate(value) if sign == ":")]):
            if text.strip() and (outside := self.outside(text)):
                there = ", ".join(map(str, self.roots))
                return f"leads to {outside}, outside of the folders that this server may use", f"it may use {there}"
        return None

    def outside(self, text: str) -> str | None:
        """Return where a path leads to that is not below a root; None where it is, or where the text is no path."""
        try:
            text = text.strip()
            path = self.folder / os.path.expanduser(text)  # noqa: PTH111 - a home that is not there raises nothing
            named = Path(text)
            if named.is_absolute() or text.startswith(("~", "\\\\")):
                first = Path(*path.parts[:2])
                if len(path.parts) > 1 and not os.path.lexists(first) and not text.startswith("~"):
                    return None  # "/think" is a word of a prompt
            elif ".." not in re.split(r"[/\\]", text) and not os.path.lexists(path) and not glob.has_magic(text):
                return None  # a hub id, a word, or a file that is not there
            return self._first_outside(path, text)
        except (OSError, ValueError, RuntimeError):  # a name too long, a circle of links
            return None

    def _first_outside(self, path: Path, text: str) -> str | None:
        if not self.inside(Path(os.path.normpath(path))) or not self.inside(path):
            return text
        found: Iterator[Path] = iter(())
        if path.is_dir():
            found = _below(path)
        elif glob.has_magic(text):
            found = map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207 - a pattern, from its root
        for count, each in enumerate(found):
            if count == MOST_FILES:
                return f"more than {MOST_FILES:,} files, which nobody has looked at"
            if each.is_symlink() and not self.inside(each):
                return text
        return None

    def inside(self, path: Path) -> bool:
        """Whether a path leads below a root, once its links are followed."""
        real = path.resolve()
        return any(real == root or root in real.parents for root in self.roots)


def _below(folder: Path) -> Iterator[Path]:
    """Yield all that lies below a folder; links are not followed."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(where, name)


def _code(key: Key, value: str) -> str | None:
    """Say of a value that names code to be run; None if it names none."""
    if _FILE_OF_CODE.fullmatch(value.strip()):
        return "names a file of Python to be run"
    if _FUNCTION.fullmatch(value.strip()):
        return "names a function of an installed module to be run"
    if key[-1] == "attn_implementation" and _KERNELS.fullmatch(value.strip()):
        return "names kernels of the hub, which are code"
    return None


def values_of(value: Any, key: Key = ()) -> Iterator[tuple[Key, object]]:
    """Yield every value of nested tables and lists with the path of its key; names of keys are not values."""
    waiting: list[tuple[Key, Any]] = [(key, value)]
    while waiting:
        at, found = waiting.pop()
        if isinstance(found, dict):
            waiting += [((*at, name), item) for name, item in found.items()]
        elif isinstance(found, list):
            waiting += [((*at, index), item) for index, item in enumerate(found)]
        elif at:
            yield at, found


def _value(text: str) -> Any:
    """Return what a change sets, read as ``--set`` reads it."""
    try:
        return tomli.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _name(key: Key) -> str:
    return ".".join(map(str, key))
