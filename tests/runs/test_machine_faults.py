"""Faults of the machine while a job runs: said to be that, with file and cause; once it is mended, the same bits."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api.run import Run
from support.projects import Finished, Project, perform_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge.disk.folder import RunFolder

SMALL = {"max_steps": 2, "save_steps": 1}


def fails_at(count: int, number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does as another does, and fails once, at a call, as the system would."""
    calls = itertools.count(1)

    def function(*arguments: Any, **settings: Any) -> Any:
        if next(calls) == count:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **settings)

    return function


@contextmanager
def limited(name: str, value: int) -> Iterator[None]:
    """Lower a limit of this process for a time."""
    import resource

    which = getattr(resource, name)
    before = resource.getrlimit(which)
    resource.setrlimit(which, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


def weights(folder: RunFolder) -> bytes:
    return (folder.path / "adapter" / "adapter_model.safetensors").read_bytes()


def blamed_on_the_machine(done: Finished, cause: str) -> None:
    """Hold that a run ended in a fault of the machine, which is told with file, cause and what is kept."""
    error = done.error
    assert "MachineError" in error["kinds"], error
    assert str(done.folder.path) in error["what"]
    assert cause in error["why"]
    assert "is whole" in error["why"] or "no checkpoint had been saved yet" in error["why"]
    assert error["do"].endswith(f"then forge resume {done.folder.path}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> bytes:
    """The weights of the job where nothing happens."""
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project", tiny_model)
    project.write(train=SMALL)
    return weights(project.perform().folder)


@pytest.mark.parametrize(
    ("function", "count", "number", "cause"),
    [
        ("fsync", 1, errno.EROFS, "the file system is read-only"),
        ("fsync", 9, errno.ENOSPC, "the disk is full"),
        ("fsync", 14, errno.EDQUOT, "the disk quota is used up"),
        ("fsync", 30, errno.EIO, "the disk failed"),
        ("replace", 1, errno.EACCES, "this user may not"),
        ("mkdir", 2, errno.EROFS, "the file system is read-only"),
        ("rename", 1, errno.EIO, "the disk failed"),
    ],
)
def test_a_fault_at_any_operation_is_told_and_resumed_from(
    function: str,
    count: int,
    number: int,
    cause: str,
    project: Project,
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project.write(train=SMALL)
    run, folder = project.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fails_at(count, number, getattr(os, function)))
        done = perform_in(run, folder)
    assert done.code == 1, "the operation never came"
    blamed_on_the_machine(done, cause)
    again = perform_in(Run(folder=folder.path, plan=replace(folder.plan(), resume=True)), folder)
    assert again.code == 0, again.printed
    assert weights(folder) == undisturbed


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX")
def test_a_limit_on_the_size_of_files_is_told_by_whatever_writes_one(project: Project, undisturbed: bytes) -> None:
    project.write(train=SMALL)
    run, folder = project.prepare()
    with limited("RLIMIT_FSIZE", 16 * 1024):
        done = perform_in(run, folder)
    blamed_on_the_machine(done, "a limit of this process")
    again = perform_in(Run(folder=folder.path, plan=replace(folder.plan(), resume=True)), folder)
    assert again.code == 0, again.printed
    assert weights(folder) == undisturbed


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX")
def test_too_few_open_files_are_no_fault_of_a_plugin(project: Project) -> None:
    run, folder = project.prepare()
    with limited("RLIMIT_NOFILE", len(list(Path("/dev/fd").iterdir())) + 1):
        done = perform_in(run, folder)
    error = done.error
    assert "MachineError" in error["kinds"], error
    assert "ulimit -n" in error["do"]
