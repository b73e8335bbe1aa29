"""Writing files so that a kill or a full disk never leaves half of one under its final name."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from forge.disk.faults import disk_errors
from forge.errors import ForgeError, no_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it."""
    if fault := no_text(text):
        raise ForgeError(f"cannot write {path}", f"a name in it is no text: {fault}", "rename the file or folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                _flush(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Delete what processes that were killed within :func:`write_text` left below a folder.

    Whoever calls it holds the folder; other processes that are alive and write there, as one that makes a report, keep
    what is theirs.
    """
    for path in folder.rglob(".*.part"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_alive(int(process)):
            with contextlib.suppress(OSError):  # Windows does not delete what a process has open
                path.unlink()


def _is_alive(process: int) -> bool:
    """Whether another process of this machine has a number; on Windows, where asking would end it, never."""
    if process == os.getpid() or os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def write_json(path: Path, data: Any) -> None:
    """Write JSON as :func:`write_text` does. Halves of letters, which a row may hold, stand in it by their numbers."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text.encode(errors="backslashreplace").decode() + "\n")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system and the file system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _flush(handle)
    finally:
        os.close(handle)


def _flush(handle: int) -> None:
    """Flush a file or folder to the disk, where its file system can: many of networks and FUSE flush no folders."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


_CANNOT_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


def sha256(path: Path) -> str:
    """Return the sha256 of a file's content."""
    import hashlib  # OpenSSL is loaded with it, and listing plugins hashes nothing

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, *, but: frozenset[str] = frozenset()) -> dict[str, dict[str, int | str]]:
    """Flush a folder's files to the disk and return the size and sha256 of each, by its relative path.

    Whoever may read the folder may read its files after that: safetensors writes files that only their owner can.

    Args:
        folder: The folder.
        but: Names of files to leave out.
    """
    sealed: dict[str, dict[str, int | str]] = {}
    for name in files_below(folder):
        if name.name in but or name.name.endswith(".part"):
            continue
        path = folder / name
        with path.open("r+b" if os.name == "nt" else "rb") as file:
            _flush(file.fileno())
        _share(path, folder)
        sealed[name.as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    sync_folder(folder)
    return sealed


def _share(path: Path, folder: Path) -> None:
    """Let those read and write a file who may read and write its folder, as the user's umask had it made."""
    have, wanted = path.stat().st_mode, folder.stat().st_mode & 0o666
    if have | wanted != have:
        with contextlib.suppress(PermissionError):  # the file of another user, or a file system without such rights
            path.chmod(stat.S_IMODE(have | wanted))


def broken_seal(folder: Path, sealed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return how a folder's files differ from what :func:`seal` saw, or None if they are the same."""
    for name, facts in sealed.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != facts["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {facts['bytes']}"
        if sha256(file) != facts["sha256"]:
            return f"{name} is damaged: its sha256 is another"
    return None


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, as paths relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
