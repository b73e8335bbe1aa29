"""Who owns a run folder: a lock on a file, so that two processes never write one run."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from forge.disk.faults import disk_errors
from forge.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock of a run folder, a file that then holds this process's number.

    Args:
        path: The file, ``.lock`` in the folder.

    Raises:
        RunError: Another process holds it.
    """
    with disk_errors(path):
        file = path.open("a+")
    with file:
        with disk_errors(path):
            if not _lock_soon(file.fileno()):
                process = path.read_text(errors="replace") or "unknown"
                raise RunError(
                    f"{path.parent} is in use", f"process {process} holds it", "wait for it, or stop it, then try again"
                )
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a run folder."""
    if not path.exists():
        return False
    try:
        with path.open("a+") as file:
            return not _lock(file.fileno())
    except PermissionError:  # an archive that may only be read
        return False


def _lock_soon(handle: int) -> bool:
    """Take the lock; a process that only asks whether it is held has it for a moment."""
    for _ in range(20):
        if _lock(handle):
            return True
        time.sleep(0.02)
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # it locks from the position on: always the same byte, beyond the text
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks (some NFS and Lustre mounts): better unguarded than not at all
            return True
        return True
