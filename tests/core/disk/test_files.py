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
from forge.disk.files import files_below, seal, sha256, sweep, write_json, write_text
from forge.errors import DiskFull, ForgeError


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
    write_json(tmp_path / "a.json", {"half": "\ud83d"})  # as a row may hold it
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"half": "\ud83d"}


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
    with pytest.raises(DiskFull if moment != "write" else ForgeError):
        write_text(path, text)
    assert path.read_text() == "old"
    assert files_below(tmp_path) == [Path("a.txt")]


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, sys; from pathlib import Path; from forge.disk import files\n"
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


def test_files_are_listed_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(b"x")
    (tmp_path / "a").write_bytes(b"y" * 2**21)
    assert files_below(tmp_path) == [Path("a"), Path("b/c/d")]
    assert sha256(tmp_path / "a") == hashlib.sha256(b"y" * 2**21).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="folders are not flushed there")
def test_a_file_system_that_cannot_flush_folders_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def cannot(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", cannot)
    write_text(tmp_path / "a.txt", "text")
    assert seal(tmp_path)["a.txt"]["bytes"] == 4


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
def test_sealed_files_can_be_read_by_whoever_may_read_their_folder(tmp_path: Path) -> None:
    for mode, wanted in ((0o755, 0o644), (0o750, 0o640), (0o700, 0o600)):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        (folder / "model.safetensors").write_bytes(b"x")
        (folder / "model.safetensors").chmod(0o600)
        seal(folder)
        assert (folder / "model.safetensors").stat().st_mode & 0o777 == wanted


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
