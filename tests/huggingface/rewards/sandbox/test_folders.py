"""The folders of programs: gone afterwards, whatever a program has made in them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge.disk.owner import hold
from forge_huggingface.rewards.sandbox import folders, run
from forge_huggingface.rewards.sandbox.run import MIB, Limits
from support.projects import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(seconds=30, memory=256 * MIB)
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
AWKWARD = {
    "deep": "for number in range(1200):\n    os.mkdir('abcd'); os.chdir('abcd')",
    "deep with long names": "for number in range(60):\n    os.mkdir('a' * 255); os.chdir('a' * 255)",
    "wide": "for number in range(900): os.mkdir(str(number))",
    "closed": "os.makedirs('a/b/c'); os.mkdir('d', 0); os.mkdir('e', 0o300); os.mkdir('e/f'); os.umask(0o777)\n"
    "os.mkdir('g'); open('h', 'w').close()",
    "odd names": "for name in (b'\\xff\\xfe', b'-rf', b' ', b'new\\nline', b'\\\\', b'a' * 255): os.mkdir(name)",
    "links": "os.symlink('/', 'root'); os.symlink('..', 'up'); os.symlink('loop', 'loop'); os.mkdir('a')\n"
    "open('x', 'w').close(); os.link('x', 'a/y'); os.mkfifo('pipe')",
    "its own name": "os.mkdir('0'); os.mkdir('0/0'); os.symlink('nowhere', '1'); os.mkdir('0/0/2')",
    "sparse": "open('x', 'wb').truncate(2**24 - 1)",
}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as fast:
        monkeypatch.setattr(tempfile, "tempdir", fast)
        yield Path(fast)


@linux
@pytest.mark.parametrize("name", AWKWARD)
def test_nothing_is_left_of_what_is_hard_to_remove(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(folders, "MAX_FILES", 10**6)
    monkeypatch.setattr(run, "_TICK", 60)
    outcome, reports = run.run_tests(f"import os\n{AWKWARD[name]}", [], LIMITS)
    assert (outcome.ended, reports) == ("done", [None])
    assert list(place.iterdir()) == []


@linux
@pytest.mark.parametrize(
    "program",
    [
        "number = 0\nwhile True:\n    number += 1; open(str(number), 'w').close()",
        "number = 0\nwhile True:\n    number += 1; open(str(number), 'wb').write(bytes(2**24))",
        "import os\nwhile True: os.mkdir('a'); os.chdir('a')",
        "import os\nnumber = 0\nwhile True: number += 1; os.symlink('x', str(number))",
    ],
)
def test_a_program_that_fills_the_disk_is_ended(place: Path, program: str) -> None:
    assert run.run_tests(program, [], LIMITS)[0].ended == "files"
    assert list(place.iterdir()) == []


@linux
def test_what_was_left_by_a_killed_process_is_swept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    starter = (
        "from forge_huggingface.rewards.sandbox.run import Limits, run_script\n"
        "run_script('import time, os\\nos.makedirs(\"a/b\")\\ntime.sleep(60)', '', Limits(seconds=60, memory=2**28))"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_for(lambda: list(tmp_path.glob("*/program/a/b")))
    parent.kill()
    parent.wait()
    (left,) = tmp_path.iterdir()
    folders.sweep()
    assert left.exists()  # it may be so new that it has no lock yet
    used, other = tmp_path / "forge-program-used", tmp_path / "forge-programs"
    used.mkdir()
    other.mkdir()
    with hold(used / ".lock"):
        for path in (left, used, other):
            os.utime(path, (0, 0))
        folders.sweep()
    assert sorted(tmp_path.iterdir()) == [used, other]


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="root may remove it")
def test_what_cannot_be_removed_is_told_and_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with caplog.at_level(logging.WARNING), folders.folder():
        tmp_path.chmod(0o500)
    tmp_path.chmod(0o700)
    assert "a program's folder cannot be removed" in caplog.text
