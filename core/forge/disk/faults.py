"""Faults of the machine: what a disk, a permission or a limit does to files, told with the file, cause and advice.

Whoever meets one, forge or a library below a plugin, no code is wrong: the message must not send the user to a bug
tracker. Libraries in C++ and Rust hide the system's error in a text, so that is looked through too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forge.errors import DiskFull, MachineError, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fault(NamedTuple):
    """What an error number of the system means: what cannot be done, why, and what to do about it."""

    verb: str
    why: str
    do: str


_RIGHTS = Fault("read or write", "this user may not", "give this user the right, or choose another folder")
_HARD = {
    errno.ENOSPC: Fault("write", "the disk is full", "free some space"),
    getattr(errno, "EDQUOT", errno.ENOSPC): Fault("write", "the disk quota is used up", "free some space"),
    errno.EFBIG: Fault(
        "write",
        "the file would be larger than the file system or a limit of this process allows",
        "raise the limit (`ulimit -f unlimited`), or choose another disk",
    ),
    errno.EROFS: Fault(
        "write", "the file system is read-only", "mount it so that it can be written, or choose another folder"
    ),
    errno.EIO: Fault("read or write", "the disk failed (input/output error)", "check the disk; `dmesg` may tell more"),
    errno.EMFILE: Fault("open", "this process has too many open files", "raise the limit: `ulimit -n 4096`"),
    errno.ENFILE: Fault("open", "the machine has too many open files", "end other programs, or raise fs.file-max"),
    getattr(errno, "ESTALE", errno.EIO): Fault(
        "read or write", "the network file system lost it", "mount the file system again"
    ),
    getattr(errno, "ENOTCONN", errno.EIO): Fault(
        "read or write", "its file system is not connected any more", "mount the file system again"
    ),
}
"""Faults that nothing but the machine brings about; they count also where an error came up while one was handled."""

_SOFT = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EBUSY: Fault("write", "another program holds it", "end that program"),
    errno.ELOOP: Fault("read or write", "links lead round in a circle", "mend the link"),
    errno.ENAMETOOLONG: Fault("read or write", "the name is too long", "choose a shorter one"),
    errno.EAGAIN: Fault("start a process or thread for", "the machine allows no more of them", "raise `ulimit -u`"),
}
_UNSAID = -1
"""In place of a number where a library says only that it could not write."""

_UNWRITTEN = re.compile(r"PytorchStreamWriter failed|inline_container\.cc.*unexpected pos", re.DOTALL)
"""What torch says of a file that it could not write, whatever the cause."""


def is_hard(error: BaseException) -> bool:
    """Whether an exception, of whatever library, tells of a fault that nothing but the machine brings about."""
    number, _ = _found(error)
    return number in _HARD or number == _UNSAID


def machine_error(error: BaseException, place: Path, *, wide: bool = False) -> MachineError | None:
    """Return an exception as an error of the machine, or None if it is none.

    Args:
        error: The exception, of whatever library.
        place: The file or folder that was read or written, if the exception names none.
        wide: Whether every error of the system counts, as it does where no plugin's code ran; without it a file that is
            not there counts only below ``place``, where forge had put it.
    """
    if isinstance(error, MachineError):
        return error
    number, cause = _found(error)
    path = _named(cause)
    if number is None:
        if not isinstance(cause, OSError) or cause.errno is None:
            return None
        lost = cause.errno in {errno.ENOENT, errno.ENOTDIR} and path is not None and path.is_relative_to(place)
        return MachineError(f"cannot use {path or place}", cause.strerror, "restore it") if wide or lost else None
    if _lacks_temporary(cause):
        return MachineError("there is no folder for temporary files", str(cause.args[1]), "set TMPDIR to one with room")
    return _told(number, path or (f"a file in {place}" if place.is_dir() else place), path or place)


@contextlib.contextmanager
def disk_errors(what: Path) -> Iterator[None]:
    """Turn a fault of the machine into :class:`MachineError`, or :class:`DiskFull`, that names the file."""
    try:
        yield
    except OSError as error:
        number, _ = _found(error)
        if number is None:
            raise
        raise _told(number, what, what) from error


def _told(number: int, what: object, place: Path) -> MachineError:
    if number == _UNSAID:
        number = _why_unwritten(place)
    verb, why, do = (_HARD | _SOFT)[number]
    full = number in {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
    if number == errno.ENOSPC:
        why, do = _room(place if place.is_dir() else place.parent, why, do)
    if number == errno.EMFILE:
        with contextlib.suppress(ImportError):
            import resource  # not on Windows

            why += f" ({resource.getrlimit(resource.RLIMIT_NOFILE)[0]} are allowed)"
    return (DiskFull if full else MachineError)(f"cannot {verb} {what}", why, do)


def _room(folder: Path, why: str, do: str) -> tuple[str, str]:
    """Return what a full disk lacks: space, or room for more files."""
    with contextlib.suppress(OSError, AttributeError):  # not on Windows
        stat = os.statvfs(folder)
        if stat.f_files and not stat.f_favail:
            return "the disk has no room for more files (no inodes)", "delete some files"
        free = stat.f_bavail * stat.f_frsize
        if free > 2**30:
            return f"{why}, though it has {free / 2**30:.0f} GiB free: a quota, perhaps", do
        return f"{why} ({free / 2**20:.0f} MiB free)", do
    return why, do


def _found(error: BaseException) -> tuple[int | None, BaseException]:
    """Return the number of a fault, and the exception of the chain that tells it."""
    seen: set[int] = set()
    each: BaseException | None = error
    sure = True  # of the error itself and what it was made from; not of what was handled when it came up
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        number = _number(each)
        if number in _HARD or number == _UNSAID or (sure and number in _SOFT):
            return number, each
        if sure and _lacks_temporary(each):
            return errno.EACCES, each
        sure = sure and each.__cause__ is not None
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return None, error.__cause__ or error


def _number(error: BaseException) -> int | None:
    """Return the system's error number that one exception holds, in its text if nowhere else."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = text_of(error)
    if rust := re.search(r"\(os error (\d+)\)", text):
        return int(rust[1])
    if "can't start new thread" in text:
        return errno.EAGAIN
    if "not enough space" in text:
        return errno.ENOSPC
    said = next((number for number in _HARD if os.strerror(number) in text), None)
    return _UNSAID if said is None and _UNWRITTEN.search(text) else said


def _why_unwritten(place: Path) -> int:
    """Return the likely cause where a library says only that it could not write: no room, a limit, or the disk."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(place if place.is_dir() else place.parent).free < 16 * 2**20:
            return errno.ENOSPC
    with contextlib.suppress(ImportError):
        import resource

        if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
            return errno.EFBIG
    return errno.EIO


def _lacks_temporary(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) and "No usable temporary directory" in text_of(error)


def _named(error: BaseException) -> Path | None:
    """Return the file that an error is about: where something was moved, the place that it was moved to.

    The system names no file that was open already; then it is the one that the code which failed had at hand.
    """
    for name in (getattr(error, "filename2", None), getattr(error, "filename", None)):
        if isinstance(name, str | bytes) and name:
            return Path(os.fsdecode(name))
    trace, found = error.__traceback__ if isinstance(error, OSError) else None, None
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            if isinstance(name, str) and not name.startswith("<"):  # "<stderr>" is no file's
                found = Path(name)
        trace = trace.tb_next
    return found
