"""Files: whatever happens while one is written, the one under its name is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forge.disk import files
from forge.disk.files import disk_errors, disk_full, files_below, is_disk_full, sha256, sweep, write_json, write_text
from forge.errors import DiskFull


def test_a_text_is_written_whole_with_unix_line_ends_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "eins\nzwei — 三\n")
    assert (tmp_path / "a.txt").read_bytes() == "eins\nzwei — 三\n".encode()
    assert files_below(tmp_path) == [Path("a.txt")]


def test_json_is_readable_by_people_and_programs(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Köln", "list": [1, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Köln" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"name": "Köln", "list": [1, None]}


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_failure_at_any_moment_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    text = "new"
    if moment == "fsync":
        monkeypatch.setattr(files.os, "fsync", full)
    elif moment == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        text = "new \ud800"  # cannot be encoded
    with pytest.raises(DiskFull if moment != "write" else UnicodeEncodeError):
        write_text(path, text)
    assert path.read_text() == "old"
    assert files_below(tmp_path) == [Path("a.txt")]


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, sys; from pathlib import Path; from forge import files\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "files.write_text(Path(sys.argv[1]), 'new')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode != 0
    assert path.read_text() == "old"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda *names: (order.append("replace"), replace(*names))[1])
    write_text(tmp_path / "a.txt", "text")
    assert order[:2] == ["fsync", "replace"]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(getattr(errno, "EDQUOT", errno.ENOSPC), "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("PytorchStreamWriter failed: No space left on device"), True),
        (Exception("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64 vs 0"), False),
        (ValueError("no such thing"), False),
    ],
)
def test_a_full_disk_is_recognised_whichever_library_says_it(error: BaseException, full: bool) -> None:
    assert is_disk_full(error) is full


def test_a_full_disk_names_the_file_and_the_space_that_is_left(tmp_path: Path) -> None:
    text = str(disk_full(tmp_path / "model.safetensors"))
    assert text.startswith(f"cannot write {tmp_path / 'model.safetensors'}: the disk is full (")
    assert text.endswith(" MiB free); free some space")
    assert str(disk_full(Path("/nowhere/at/all"))) == "cannot write /nowhere/at/all: the disk is full; free some space"


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full_is_told() -> None:
    with pytest.raises(DiskFull), disk_errors(Path("/dev/full")):
        Path("/dev/full").write_text("x")


def test_files_are_listed_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(b"x")
    (tmp_path / "a").write_bytes(b"y" * 2**21)
    assert files_below(tmp_path) == [Path("a"), Path("b/c/d")]
    assert sha256(tmp_path / "a") == hashlib.sha256(b"y" * 2**21).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot be asked about a process without ending it")
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "exports").mkdir()
    names = [
        f".trained.json.{gone.pid}.part",
        f"exports/.export.json.{gone.pid}.part",
        f".plan.json.{os.getpid()}.part",
    ]
    kept = [f".report.html.{os.getppid()}.part", "rows.part", ".lock"]
    for name in names + kept:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
