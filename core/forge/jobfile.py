"""Reading a job file, and telling every mistake at once, each with its line.

A typo in a job must never be ignored: every key belongs to the core's tables, to the options of an offer that serves
the job's method, type or format, or to a plugin's own table. Whatever is left over is a mistake.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from forge.errors import JobError, Problem, UsageError
from forge.job import Job, Source
from forge.jobcheck import JobCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.discovery import Catalogue
    from forge.jobcheck import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A job file that was read and found right.

    Attributes:
        job: The job.
        text: The file as it was given.
        source: The file's path, for messages.
        overrides: What ``--set`` changed.
        named: The keys that the user wrote, as ``train.learning_rate``; what is not here was left open.
    """

    job: Job
    text: str
    source: str
    overrides: tuple[str, ...]
    named: frozenset[str]


def read(path: Path, catalogue: Catalogue, overrides: Sequence[str] = ()) -> JobFile:
    """Read and check a job file.

    Args:
        path: The file.
        catalogue: The plugins, whose options the job may use.
        overrides: Changes of the form ``train.max_steps=10``; the value is TOML, or else a string.

    Raises:
        UsageError: The file cannot be read.
        JobError: The file has mistakes; it holds all of them.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark at the beginning
    except FileNotFoundError:
        beside = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1) or beside[:1]
        hint = f"did you mean {path.parent / near[0]}?" if near else "make one with `forge init`"
        raise UsageError(f"there is no job file {path}", do=hint) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", do="name the job file in it") from None
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read", error.strerror) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", f"byte {error.start} is not UTF-8") from None
    return parse(text, str(path), path.parent.resolve(), catalogue, overrides)


def parse(text: str, source: str, folder: Path, catalogue: Catalogue, overrides: Sequence[str] = ()) -> JobFile:
    """Check the text of a job file, whose relative paths start at ``folder``. Raises as :func:`read` does."""
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise JobError(source, [Problem("", f"not TOML: {error.msg}", line=error.lineno)]) from None
    changed = [_override(raw, override) for override in overrides]
    check = JobCheck(raw, text, source, catalogue, changed)
    job = check.job(folder)
    if check.problems or job is None:
        raise JobError(source, check.problems)
    return JobFile(job=job, text=text, source=source, overrides=tuple(overrides), named=frozenset(_leaves(raw)))


def load_job(dump: Mapping[str, Any]) -> Job:
    """Rebuild a job that :func:`dump_job` wrote into a plan; it was checked when it was read."""
    return Job.model_validate({**dump, "folder": Path(dump["folder"])}, strict=False)


def dump_job(job: Job) -> dict[str, Any]:
    """Return the job as JSON data, with the plugins' options and the folder that relative paths start at."""
    data: dict[str, Any] = job.model_dump(mode="json", by_alias=True)
    data["folder"] = str(job.folder)
    data["adapter"]["options"] = job.adapter.options
    data["train"]["options"] = job.train.options
    if job.adapter.type == "none":
        data["adapter"] = {"type": "none", "options": job.adapter.options, **job.adapter.parts}
    if job.data.sources:
        for key in Source.model_fields:  # each source has its own
            del data["data"][key]
    for written, export in zip(data["export"], job.export, strict=True):
        written["options"] = export.options
    return data


def _override(raw: dict[str, Any], text: str) -> Key:
    """Apply ``a.b.0.c=value`` to the raw tables, and return the key."""
    written, equals, value = text.partition("=")
    parts = written.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {text} is no change", "it has no key and value", "write --set train.max_steps=10")
    target: Any = raw
    path: list[str | int] = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        key: str | int = part
        if isinstance(target, list):
            if not part.isdigit() or int(part) > len(target):
                there = f"{len(target)} entries, counted from 0" if target else "no entry"
                raise UsageError(f"--set {text} cannot be applied", f"{'.'.join(map(str, path))} has {there}")
            key = int(part)
            if key == len(target):
                target.append({})
        elif not isinstance(target, dict):
            raise UsageError(f"--set {text} cannot be applied", f"{'.'.join(map(str, path))} is no table")
        path.append(key)
        if not following:
            target[key] = _value(value)
        elif isinstance(target, dict):
            target = target.setdefault(part, [] if following.isdigit() else {})
        else:
            target = target[key]
    return tuple(path)


def _value(written: str) -> Any:
    try:
        return tomli.loads(f"value = {written}")["value"]
    except tomli.TOMLDecodeError:
        return written  # a bare word is a string: --set model.id=org/name


def _leaves(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}{key}.")
    else:
        yield prefix.rstrip(".")
