"""The folders of programs: made, measured while a program runs, and removed for sure.

What is in one may have been made to be hard to remove: thousands of folders in each other, folders that nobody may
enter. Those of a forge that was killed are removed by the next.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from forge.disk.owner import hold, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator


MAX_FILES = 1000
"""Files and folders after which a program is ended."""

MAX_SIZE = 64 * 2**20
"""Bytes in all its files after which a program is ended."""

_PREFIX = "forge-program-"
_LOCK = ".lock"
_DYING = 0.1  # seconds in which a program that was killed may still make a file
_FRESH = 60.0  # seconds in which a folder may not have its lock yet

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Give a folder that is this process's while it is used, and gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with hold(made / _LOCK):
            yield made
    finally:
        _remove_or_tell(made)


def sweep() -> None:
    """Remove what processes have left behind that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another forge may sweep at the same time
            about = left.lstat()
            mine = sys.platform == "win32" or about.st_uid == os.getuid()
            if mine and time.time() - about.st_mtime > _FRESH and not is_held(left / _LOCK):
                _remove_or_tell(left)


def remove(made: Path) -> None:
    """Remove a folder with all that is in it, whatever a program has made there.

    Each folder inside is first moved up to where its name is short. So nothing is called by a path longer than the
    system takes, and the depth costs neither memory nor open files.
    """
    if sys.platform == "win32":  # folders can be links there; that is for the standard library to know
        shutil.rmtree(made)
        return
    names = (made / str(number) for number in itertools.count())
    waiting = [made]
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as entries:
            found = list(entries)
        for entry in found:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                path.chmod(0o700)
                waiting.append(path.rename(next(name for name in names if not os.path.lexists(name))))
            else:
                path.unlink()
        if place != made:
            place.rmdir()
    made.rmdir()


def overfull(made: Path) -> bool:
    """Whether a program has made more than it may, or what cannot be looked at; it may still be at it."""
    count = size = 0
    waiting = [str(made)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > MAX_FILES:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        with contextlib.suppress(FileNotFoundError):
                            size += _size(entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            continue
        except OSError:  # a path too long, a folder that may not be read
            return True
    return size > MAX_SIZE


def _size(about: os.stat_result) -> int:
    """Return what a file takes of the disk; one with holes is smaller than it says."""
    return int(getattr(about, "st_blocks", about.st_size / 512) * 512)


def _remove_or_tell(made: Path) -> None:
    why: OSError | None = None
    for _ in range(3):
        try:
            remove(made)
        except OSError as error:
            why = error
            time.sleep(_DYING)
        else:
            return
    _log.warning("a program's folder cannot be removed: %s", why)  # the next start tries again; no training ends for it
