"""From a job file to a checked job and the plugins that it can have: those that are installed, and its own files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.discovery.discover import discover
from forge.discovery.installed import installed
from forge.discovery.keys import PluginKeys
from forge.errors import JobError, Problem
from forge.job.foreign import names_code, values_of
from forge.job.read import parse, text_of, values_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from forge.api.code import Code
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.job.read import Change, JobFile
    from forge.machine.machine import Machine


def open_job(
    path: Path,
    machine: Machine,
    changes: Sequence[Change] = (),
    wishes: Sequence[Change] = (),
    *,
    allow_code: bool = True,
    beside: Sequence[Plugin] = (),
    folder: Path | None = None,
) -> tuple[JobFile, Catalogue]:
    """Read and check a job file, and find the plugins.

    Args:
        path: The file.
        machine: The machine that they are to serve on.
        changes: Changes for this time.
        wishes: What the user always wants: changes of keys that the file and the changes leave open.
        allow_code: Whether the job may bring code of its own: files in ``[use] plugins``, functions beside the job,
            code that comes with the model. Where whoever sends a job is not to run what they like here, it may not.
        beside: Further plugins, which tests bring.
        folder: Where relative paths start, if not at the file's folder.

    Raises:
        UsageError: The file cannot be read.
        JobError: It has mistakes, one of its own plugins cannot be used, or it brings code and must not.
    """
    text, folder = text_of(path, folder)
    named = values_in(text, "use.plugins", changes)
    if named and not allow_code:
        raise JobError(str(path), [_at(text, key, _REFUSED, _DO) for key, _ in named])
    code = _read(named, text, str(path), folder)
    found = discover(code=code)
    catalogue = replace(found, plugins=(*found.plugins, *beside))
    _refuse_unusable(code, named, catalogue, text, str(path))
    file = parse(text, str(path), folder, PluginKeys(catalogue, machine), changes, wishes)
    _refuse_other(file.job, code, text, str(path))
    if not allow_code and (keys := list(code_in(file.job))):
        raise JobError(str(path), [_at(text, key, _REFUSED, _DO) for key in keys])
    return file, catalogue


_REFUSED = "it would run code that comes with the job, and that is not allowed here"
_DO = "install what it brings as a plugin where forge runs, and name that"


def code_in(job: Job) -> Iterator[str]:
    """Yield the keys by which a job brings code of its own.

    >>> from forge.api import Job
    >>> tables = {"model": {"id": "m", "trust_remote_code": True}, "data": {"path": "d"}}
    >>> sorted(code_in(Job.model_validate(tables | {"eval": {"metrics": ["./a.py:f"]}})))
    ['eval.metrics.0', 'model.trust_remote_code']
    """
    for key, value in values_of(job.tables()):
        if names_code(key, value):
            yield ".".join(map(str, key))


def _read(named: Sequence[tuple[str, Any]], text: str, source: str, folder: Path) -> list[Code]:
    """Read the files that a job names as plugins. Raises :class:`JobError` for those that cannot be one."""
    if not named:
        return []
    from forge.discovery.local import read_code  # few jobs have any

    taken = [found.point.name for found in installed()]
    codes: list[Code] = []
    problems: list[Problem] = []
    for key, value in named:
        if not isinstance(value, str):
            continue  # the check of the job says so
        code, fault = read_code(value, folder, [*taken, *(each.name for each in codes)])
        if code is not None:
            codes.append(code)
        else:
            problems.append(_at(text, key, str(fault)))
    if problems:
        raise JobError(source, problems)
    return codes


def _refuse_unusable(
    codes: Sequence[Code], named: Sequence[tuple[str, Any]], catalogue: Catalogue, text: str, source: str
) -> None:
    problems = []
    for code, (key, _) in zip(codes, (each for each in named if isinstance(each[1], str)), strict=True):
        plugin = catalogue.find(code.name)
        if plugin is not None and plugin.status != "ok":
            problems.append(_at(text, key, f"{code.path.name} cannot be used as a plugin: {plugin.reason}"))
    if problems:
        raise JobError(source, problems)


def _refuse_other(job: Job, codes: Sequence[Code], text: str, source: str) -> None:
    """Refuse a lock whose plugin is another file by now. Raises :class:`JobError`."""
    problems = []
    for code in codes:
        locked = job.use.versions.get(code.name)
        if locked is not None and locked != f"sha256:{code.digest}":
            message = f"the lock was made with another {code.path.name}, whose digest was {locked}"
            do = f"restore it, or remove this line to run the one of today (sha256:{code.digest})"
            problems.append(_at(text, f"use.versions.{code.name}", message, do))
    if problems:
        raise JobError(source, problems)


def _at(text: str, key: str, message: str, do: str | None = None) -> Problem:
    """Return a mistake at a key, with its line if the file has it."""
    from forge.job.locate import lines_of, nearest_line

    parts = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    lines = lines_of(text)
    line = nearest_line(lines, parts) if parts[:1] == ("use",) or parts[:2] in lines else None
    return Problem(key, message, do, line)
