"""forge's cache: where it is, who may write there, and what a worker is told of it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from forge.disk.cache import kept_for_later, private
from forge.machine.places import cache_folder

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")
VERSIONS = {"torch": "2.11.0", "triton": "3.6.0", "trl": "1.16.0"}


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems have places of their own")
def test_the_cache_lies_where_the_system_keeps_such_things_or_where_the_user_says() -> None:
    assert cache_folder({"HOME": "/home/ada"}) == Path("/home/ada/.cache/forge")
    assert cache_folder({"HOME": "/home/ada", "XDG_CACHE_HOME": "/big"}) == Path("/big/forge")
    assert cache_folder({"HOME": "/home/ada", "FORGE_CACHE": "/fast"}) == Path("/fast")


@POSIX
def test_the_cache_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert private(folder) is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private(tmp_path / "new" / "cache") is None
    assert stat.S_IMODE((tmp_path / "new" / "cache").stat().st_mode) == 0o700


@POSIX
def test_a_folder_of_another_user_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert private(tmp_path) == f"{tmp_path} belongs to another user"
    link = tmp_path / "link"
    monkeypatch.undo()
    link.symlink_to(tmp_path)
    assert private(link) is None  # onto a larger disk, of the same user


def test_each_combination_of_versions_has_a_folder_of_its_own(tmp_path: Path) -> None:
    environ = {"FORGE_CACHE": str(tmp_path / "cache")}
    found, why = kept_for_later(environ, VERSIONS, "3.11.7", tmp_path / "run")
    assert why is None
    below = tmp_path / "cache" / "compiled" / "python3.11.7-torch2.11.0-triton3.6.0"
    assert found["TORCHINDUCTOR_CACHE_DIR"] == str(below / "inductor")
    assert found["TRITON_CACHE_DIR"] == str(below / "triton")
    newer, _ = kept_for_later(environ, VERSIONS | {"torch": "2.12.0"}, "3.11.7", tmp_path / "run")
    assert newer["TORCHINDUCTOR_CACHE_DIR"] != found["TORCHINDUCTOR_CACHE_DIR"]


def test_a_compilers_folder_that_the_user_has_named_stays(tmp_path: Path) -> None:
    environ = {"FORGE_CACHE": str(tmp_path), "TRITON_CACHE_DIR": "/elsewhere"}
    assert kept_for_later(environ, VERSIONS, "3.11.7", tmp_path)[0]["TRITON_CACHE_DIR"] == "/elsewhere"


def test_where_the_cache_cannot_be_closed_all_of_it_moves_into_the_run(tmp_path: Path) -> None:
    """Unsloth's generated modules too: they are code that a later run would execute."""
    (tmp_path / "file").write_text("")
    environ = {
        "FORGE_CACHE": str(tmp_path / "file"),
        "UNSLOTH_COMPILE_LOCATION": str(tmp_path / "file" / "unsloth" / "1"),
    }
    found, why = kept_for_later(environ, VERSIONS, "3.11.7", tmp_path / "run")
    assert why is not None
    assert "cannot be used" in why
    assert found["UNSLOTH_COMPILE_LOCATION"] == str(tmp_path / "run" / "unsloth" / "1")
    assert found["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path / "run"))
