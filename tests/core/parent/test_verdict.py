"""What the parent says of a worker that ended without a word."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, cast

import pytest

from forge.disk.folder import RunFolder
from forge.errors import DiskFull, Interrupted, PeerLost
from forge.parent.process import verdict

if TYPE_CHECKING:
    from pathlib import Path

    from forge.parent.ranks import Ranks


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


def test_a_lost_process_that_could_write_no_word_is_blamed_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost:
        size = 2

        def primary(self, *_: object, **__: object) -> PeerLost:
            return PeerLost("another process of the training is gone")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lost = cast("Ranks", Lost())
    assert isinstance(verdict(1, None, RunFolder(tmp_path), ranks=lost), PeerLost)
    monkeypatch.setattr(os, "fsync", full)
    assert isinstance(verdict(1, None, RunFolder(tmp_path), ranks=lost), DiskFull)
