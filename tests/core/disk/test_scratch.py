"""Folders for temporary files: gone when the command ends, by a signal too, and swept where a kill left them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from forge.disk.scratch import scratch
from support.projects import wait_for

WAITS = """
import sys, time
from pathlib import Path
from forge.cli import cli, main
from forge.disk.scratch import scratch

@cli.command("wait")
def wait():
    with scratch("test", keep="log.txt") as folder:
        (folder / "rows").write_text("secret")
        Path(sys.argv[2]).write_text(str(folder))
        time.sleep(60)

from forge.cli import COMMANDS, LazyGroup
LazyGroup.get_command = lambda self, context, name: wait
sys.argv[1:2] = ["wait"]
wait.params = []
wait.allow_extra_args = wait.ignore_unknown_options = True
wait.context_settings = {"allow_extra_args": True}
main()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def waiting(tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a command that waits in its folder."""
    told = tmp_path / "told"
    process = subprocess.Popen([sys.executable, "-c", WAITS, "wait", str(told)], stderr=subprocess.PIPE)
    wait_for(lambda: told.exists() and told.read_text())
    return process, Path(told.read_text())


def failing(message: str) -> Path:
    """Fail with a message about a folder, and return the folder."""
    folder = Path()

    def fail() -> None:
        nonlocal folder
        with scratch("test", keep="log.txt") as folder:
            (folder / "run").mkdir()
            (folder / "run" / "log.txt").write_text("words")
            (folder / "run" / "rows").write_text("secret")
            raise ValueError(message.format(folder))

    with pytest.raises(ValueError, match=re.escape(message[:3])):
        fail()
    return folder


def test_the_folder_goes_at_the_end_and_after_an_error(temporary: Path) -> None:
    with scratch("test", keep="log.txt") as folder:
        assert folder.is_dir()
    failing("x")
    assert not list(temporary.iterdir())


def test_a_log_that_the_error_names_stays_alone(temporary: Path) -> None:
    folder = failing("see {}/run/log.txt")
    assert [path.name for path in temporary.rglob("*") if path.is_file()] == ["log.txt"]
    with scratch("test", keep="log.txt"):
        assert (folder / "run" / "log.txt").exists(), "it is not swept"


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_cleans_up(name: str, tmp_path: Path) -> None:
    process, folder = waiting(tmp_path)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.decode().strip()) == (130, f"stopped by {name}")
    assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_what_a_kill_left_is_swept_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    process, folder = waiting(tmp_path)
    with scratch("test", keep="log.txt"):
        assert folder.is_dir()
    process.kill()
    process.communicate(timeout=30)
    assert folder.is_dir()
    with scratch("test", keep="log.txt"):
        assert not folder.exists()
