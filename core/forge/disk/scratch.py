"""Folders for a command's temporary files, which go when it ends; what a kill left goes at the next start."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forge.disk.files import files_below
from forge.disk.owner import hold, is_held
from forge.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

LOCK = ".lock"


@contextmanager
def scratch(kind: str, *, keep: str) -> Iterator[Path]:
    """Make a folder ``forge-<kind>-…`` and delete it at the end, at SIGTERM and SIGHUP too.

    Args:
        kind: What it is for; folders of the same kind whose process is dead are deleted first.
        keep: The name of a file that stays if an error names it.
    """
    _sweep(kind)
    folder = Path(tempfile.mkdtemp(prefix=f"forge-{kind}-"))
    told = ""
    try:
        with _ending_in_an_exception(), hold(folder / LOCK):
            yield folder
    except BaseException as error:
        told = str(error)
        raise
    finally:
        _clear(folder, keep if keep in told else None)


def _clear(folder: Path, keep: str | None) -> None:
    """Delete a folder, but files of one name."""
    if keep is None or not any(name.name == keep for name in files_below(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in files_below(folder):
        if name.name != keep:
            (folder / name).unlink(missing_ok=True)


def _sweep(kind: str) -> None:
    """Delete the folders that killed processes of this user left; one that was kept for its log has no lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"forge-{kind}-*"):
        lock = folder / LOCK
        with suppress(OSError):  # of another user, or gone in this moment
            mine = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            if mine and not folder.is_symlink() and lock.stat().st_size and not is_held(lock):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ending_in_an_exception() -> Iterator[None]:
    """Turn signals that would end the process at once into :class:`Interrupted`; nohup still works."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    ours = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
