"""Reading a job file, and telling every mistake at once, each with its line.

A typo in a job must never be ignored: every key belongs to the core's tables, to the options of an offer that serves
the job's method, type or format, or to a plugin's own table. Whatever is left over is a mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tomli

from forge.errors import JobError, Problem, UsageError, first_line, no_text
from forge.job.check import JobCheck
from forge.job.literal import literal
from forge.job.nearest import nearest
from forge.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from forge.job.job import Job
    from forge.job.keys import Keys, Written
    from forge.job.locate import Key


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a job for this time.

    Attributes:
        key: The key, as in ``train.max_steps``; a number is the index in an array: ``export.0.format``.
        value: Its value, as TOML's types.
        text: How the user wrote the change, if somebody did.
    """

    key: str
    value: Any
    text: str = ""

    def __str__(self) -> str:
        """Return the change as :func:`change_of` reads it."""
        return self.text or f"{self.key}={literal(self.value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A job file that was read and found right.

    Attributes:
        job: The job.
        text: The file as it was given.
        source: The file's path, for messages.
        overrides: The changes, as :func:`change_of` reads them.
        named: The keys that the user wrote, as ``train.learning_rate``; what is not here was left open.
        written: What the tables have beside the core's keys, as ``{"train": {"optim": "adamw"}}``, defaults left out.
        owners: Whose keys the tables were read by, where that was settled: ``{"train": "mlx"}``.
        config: The user's own file that says what to prefer, where the job does not.
    """

    job: Job
    text: str
    source: str
    overrides: tuple[str, ...]
    named: frozenset[str]
    written: Mapping[str, Written] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None


def read(
    path: Path,
    keys: Keys,
    changes: Sequence[Change] = (),
    wishes: Sequence[Change] = (),
    *,
    folder: Path | None = None,
) -> JobFile:
    """Read and check a job file.

    Args:
        path: The file.
        keys: The keys that plugins add.
        changes: Changes for this time.
        wishes: What the user always wants: changes of keys that the file and the changes leave open.
        folder: Where relative paths start, if not at the file's folder.

    Raises:
        UsageError: The file cannot be read.
        JobError: The file has mistakes; it holds all of them.
    """
    text, folder = text_of(path, folder)
    return parse(text, str(path), folder, keys, changes, wishes)


def text_of(path: Path, folder: Path | None = None) -> tuple[str, Path]:
    """Return a job file's text, and the folder at which its relative paths start: ``folder``, or that of the file.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        # A pipe that a shell has opened is fine; any other would be waited for without end.
        opened = str(path).startswith(("/dev/fd/", "/dev/stdin"))
        if not opened and path.exists() and not path.is_file() and not path.is_dir():
            raise UsageError(f"{path} is no file", "it is a pipe, a socket or a device", "name a job file")
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark at the beginning
    except FileNotFoundError:
        found = path.parent.glob("*.toml") if path.parent.is_dir() else ()
        beside = [file.name for file in found if file.name != "pyproject.toml"]
        near = nearest(path.name, beside) or next(iter(beside), None)
        hint = f"did you mean {path.parent / near}?" if near else "make one with `forge init`"
        raise UsageError(f"there is no job file {path}", do=hint) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", do="name the job file in it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read", error.strerror) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", f"byte {error.start} is not UTF-8") from None
    folder = (folder or path.parent).resolve()
    if fault := no_text(folder / path.name):
        raise UsageError(f"{folder / path.name} cannot be used", fault, "rename the file, or the folder")
    return text, folder


def values_in(text: str, key: str, changes: Sequence[Change] = ()) -> list[tuple[str, Any]]:
    r"""Return the entries of one array of a job, each with its key, before anything is checked; none of a damaged job.

    >>> values_in('[use]\nplugins = ["./a.py"]', "use.plugins")
    [('use.plugins.0', './a.py')]
    """
    name = key.rpartition(".")[2]
    given = [text, *(f"{change.key} {change.value}" for change in changes)]
    if not any(name in each or "\\" in each for each in given):  # nearly every job; an escape may spell the key
        return []
    try:
        raw = tomli.loads(text)
        for change in changes:
            _apply(raw, change)
    except (ValueError, RecursionError, UsageError):  # whoever reads the job says so
        return []
    found: Any = raw
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return [(f"{key}.{index}", value) for index, value in enumerate(found)] if isinstance(found, list) else []


def parse(
    text: str, source: str, folder: Path, keys: Keys, changes: Sequence[Change] = (), wishes: Sequence[Change] = ()
) -> JobFile:
    """Check the text of a job file, whose relative paths start at ``folder``. Raises as :func:`read` does."""
    try:
        raw = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        raise JobError(source, [_unread(text, error)]) from None
    changed = [_apply(raw, change) for change in changes]
    open_wishes = [wish for wish in wishes if not _is_set(raw, wish.key)]
    changed += [_apply(raw, wish) for wish in open_wishes]
    check = JobCheck(raw, text, keys, changed)
    job = check.job(folder)
    if check.problems or job is None:
        raise JobError(source, check.problems)
    overrides = tuple(map(str, [*changes, *open_wishes]))
    # The file is copied into the run's folder. No value holds a login, but what stands behind a # might.
    hidden = masked(text)
    text = hidden if hidden == text or tomli.loads(hidden) == tomli.loads(text) else text
    named = frozenset(_leaves(raw))
    return JobFile(job=job, text=text, source=source, overrides=overrides, named=named, written=check.written)


def again(file: JobFile, keys: Keys, owners: Mapping[str, str]) -> JobFile:
    """Read a job file's text again, by the keys of other plugins. Raises :class:`JobError` if they are not its own."""
    changes = [change_of(text) for text in file.overrides]
    return replace(parse(file.text, file.source, file.job.folder, keys, changes), owners=owners, config=file.config)


def written(file: JobFile) -> dict[str, Any]:
    """Return the tables of a job as their user wrote them, the changes in their places and nothing filled in."""
    raw: dict[str, Any] = tomli.loads(file.text)
    for text in file.overrides:
        _apply(raw, change_of(text))
    return raw


def _unread(text: str, error: ValueError | RecursionError) -> Problem:
    """Say why a text is not TOML, and where."""
    from forge.job.locate import twice

    if isinstance(error, tomli.TOMLDecodeError):
        if again := twice(text, error.lineno):
            key, first = again
            return Problem(key, f"not TOML: it is in line {first} already", "keep one", error.lineno)
        return Problem("", f"not TOML: {error.msg}", line=error.lineno)
    # Numbers of thousands of digits, and hundreds of brackets or dots: tomli tells no line of them.
    signs = r"\d" if isinstance(error, ValueError) else r"[\[{.]"
    counts = [len(re.findall(signs, line)) for line in text.split("\n")]
    return Problem("", f"not TOML: {first_line(error)}", line=counts.index(max(counts)) + 1)


def change_of(text: str, option: str = "--set") -> Change:
    """Read a change as the command line writes it: ``a.b.0.c=value``; the value is TOML, or else a string.

    >>> change_of("train.max_steps=10").value
    10

    Raises:
        UsageError: It has no key, or no value.
    """
    key, equals, value = text.partition("=")
    if fault := no_text(text):
        raise UsageError(f"{option} {text} cannot be used", fault)
    if not equals or not all(key.strip().split(".")):
        example = "train.max_steps=10" if option == "--set" else "key=value"
        raise UsageError(f"{option} {text} is no change", "it has no key and value", f"write {option} {example}")
    try:
        return Change(key.strip(), tomli.loads(f"value = {value}")["value"], text)
    except tomli.TOMLDecodeError:
        return Change(key.strip(), value, text)  # a bare word is a string: --set model.id=org/name
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{option} {key} cannot be read", first_line(error)) from None


def _apply(raw: dict[str, Any], change: Change) -> Key:
    """Apply a change to the raw tables, and return the path of its key."""
    parts = change.key.split(".")
    target: Any = raw
    path: list[str | int] = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        key: str | int = part
        if isinstance(target, list):
            if not part.isdecimal() or int(part) > len(target):
                there = f"{len(target)} entries, counted from 0" if target else "no entry"
                raise UsageError(f"--set {change} cannot be applied", f"{'.'.join(map(str, path))} has {there}")
            key = int(part)
            if key == len(target):
                target.append({})
        elif not isinstance(target, dict):
            raise UsageError(f"--set {change} cannot be applied", f"{'.'.join(map(str, path))} is no table")
        path.append(key)
        if not following:
            target[key] = change.value
        elif isinstance(target, dict):
            target = target.setdefault(part, [] if following.isdecimal() else {})
        else:
            target = target[key]
    return tuple(path)


def _is_set(raw: Any, key: str) -> bool:
    """Tell whether raw tables hold a key, or something else where its tables should be."""
    for part in key.split("."):
        if not isinstance(raw, dict):
            return True
        if part not in raw:
            return False
        raw = raw[part]
    return True


def _leaves(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}{key}.")
    else:
        yield prefix.rstrip(".")
