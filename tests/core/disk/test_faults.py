"""Faults of the machine: told with the file, the cause and what to do, whichever library met them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from forge.disk.faults import disk_errors, is_hard, machine_error
from forge.errors import DiskFull, MachineError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """Return an error with the one that it was made from."""
    error.__cause__ = cause
    return error


def full(what: Path) -> MachineError:
    """Return what is said of a full disk at a file."""
    error = machine_error(OSError(errno.ENOSPC, "no space", str(what)), what)
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (FULL, DiskFull, "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFull, "the disk quota is used up"),
        (OSError(errno.EFBIG, "File too large"), MachineError, "a limit of this process"),
        (OSError(errno.EROFS, "Read-only file system"), MachineError, "the file system is read-only"),
        (OSError(errno.EIO, "Input/output error"), MachineError, "the disk failed (input/output error)"),
        (OSError(errno.EMFILE, "Too many open files"), MachineError, "this process has too many open files"),
        (OSError(errno.EACCES, "Permission denied"), MachineError, "this user may not"),
        (RuntimeError("PytorchStreamWriter failed: No space left on device"), DiskFull, "the disk is full"),
        (Exception("I/O error: No space left on device (os error 28)"), DiskFull, "the disk is full"),
        (
            Exception("Error while serializing: I/O error: File too large (os error 27)"),
            MachineError,
            "a limit of this",
        ),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), MachineError, "the disk"),
        (RuntimeError("can't start new thread"), MachineError, "the machine allows no more of them"),
        (caused(ValueError("not written"), FULL), DiskFull, "the disk is full"),
        (caused(ValueError("not read"), PermissionError(errno.EACCES, "no")), MachineError, "this user may not"),
    ],
)
def test_a_fault_is_recognised_whichever_library_says_it(
    error: BaseException, kind: type[MachineError], why: str, tmp_path: Path
) -> None:
    told = machine_error(error, tmp_path / "model.safetensors")
    assert type(told) is kind
    assert str(tmp_path / "model.safetensors") in told.what
    assert why in str(told.why)
    assert told.do


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such thing"),
        KeyError("a"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "rows.json"),
        RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"),
    ],
)
def test_what_a_plugin_does_wrong_is_no_fault_of_the_machine(error: BaseException, tmp_path: Path) -> None:
    assert machine_error(error, tmp_path) is None


@pytest.mark.parametrize(("first", "blamed"), [(PermissionError(errno.EACCES, "no"), False), (FULL, True)])
def test_a_missing_right_that_somebody_dealt_with_is_not_blamed_for_what_came_after(
    first: OSError, blamed: bool, tmp_path: Path
) -> None:
    error = ValueError("something else")
    error.__context__ = first
    assert (machine_error(error, tmp_path) is not None) is blamed
    assert is_hard(error) is blamed


def test_the_file_that_an_error_names_is_told_and_of_a_move_its_new_place() -> None:
    moved = OSError(errno.EROFS, "Read-only file system", "/runs/.a.part", None, "/runs/a")
    assert "cannot write /runs/a" in str(machine_error(moved, Path("/runs")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_file_that_was_being_written_is_told_where_the_system_names_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised:  # noqa: SIM117 - the error comes when the file is closed
        with Path("/dev/full").open("w") as file:
            file.write("x")
    assert "cannot write /dev/full" in str(machine_error(raised.value, tmp_path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stream_of_the_process_is_no_file(tmp_path: Path) -> None:
    class Named(io.TextIOWrapper):
        name = "<stderr>"

    stream = Named(io.BufferedWriter(io.FileIO(os.open("/dev/full", os.O_WRONLY), "w")))
    stream.write("x")
    with pytest.raises(OSError, match="No space") as raised:
        stream.flush()
    assert str(tmp_path) in str(machine_error(raised.value, tmp_path))
    with contextlib.suppress(OSError):
        stream.close()


def test_what_was_in_the_run_folder_and_is_gone_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "checkpoints" / "a"))
    assert "restore it" in str(machine_error(gone, tmp_path))
    assert machine_error(gone, tmp_path / "other") is None


def test_no_folder_for_temporary_files_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError) as raised:
        tempfile.mkdtemp()
    assert "set TMPDIR" in str(machine_error(raised.value, tmp_path))


def test_a_full_disk_names_the_file_and_the_space_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(f_files=9, f_favail=9, f_frsize=1, f_bavail=2**20)
    monkeypatch.setattr(os, "statvfs", lambda path: room if Path(path).stat() else None)
    text = str(full(tmp_path / "model.safetensors"))
    assert text == f"cannot write {tmp_path / 'model.safetensors'}: the disk is full (1 MiB free); free some space"
    room.f_favail = 0
    assert "no room for more files (no inodes)" in str(full(tmp_path / "a"))
    room.f_favail, room.f_bavail = 9, 2**40
    assert "the disk is full, though it has 1024 GiB free" in str(full(tmp_path / "a"))
    assert str(full(Path("/nowhere/at/all"))) == "cannot write /nowhere/at/all: the disk is full; free some space"


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), disk_errors(tmp_path):
        raise FileExistsError(errno.EEXIST, "File exists")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full_is_told() -> None:
    with pytest.raises(DiskFull), disk_errors(Path("/dev/full")):
        Path("/dev/full").write_text("x")
