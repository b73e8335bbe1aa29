"""What the parent says of a worker that ended without a word."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from forge.disk.folder import RunFolder
from forge.errors import Interrupted
from forge.parent.process import verdict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("code", [130, -signal.SIGTERM])
def test_a_worker_that_was_asked_to_stop_before_it_was_up_was_stopped(tmp_path: Path, code: int) -> None:
    assert isinstance(verdict(code, None, RunFolder(tmp_path), [signal.SIGTERM]), Interrupted)


def test_one_that_nobody_asked_was_killed(tmp_path: Path) -> None:
    said = verdict(-signal.SIGTERM, None, RunFolder(tmp_path))
    assert "the worker was killed (SIGTERM)" in str(said)


def test_one_that_crashed_while_it_was_asked_crashed(tmp_path: Path) -> None:
    said = verdict(-signal.SIGSEGV, None, RunFolder(tmp_path), [signal.SIGTERM])
    assert "the worker was killed (SIGSEGV)" in str(said)


def test_a_second_wish_is_told_as_what_it_was(tmp_path: Path) -> None:
    said = verdict(-signal.SIGKILL, None, RunFolder(tmp_path), [signal.SIGINT, signal.SIGINT])
    assert "stopped at once" in str(said)
