"""The benchmark of starting: that it runs and what it prints; the times belong to the machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks" / "startup.py"


@pytest.mark.slow
def test_each_command_is_measured_beside_another_checkouts() -> None:
    command = [sys.executable, str(BENCHMARK), "--rounds", "1", "--against", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^\| forge (\S+) \| \d+ \(.*\) \| \d+ \(.*\) \| \d\.\d\d \|$", done.stdout, re.MULTILINE)
    assert names == ["--help", "plugins", "schema", "plan"]


@pytest.mark.slow
def test_a_crowd_of_plugins_is_measured_beside_none() -> None:
    command = [sys.executable, str(BENCHMARK), "--rounds", "1", "--crowd", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| command \| (\S+), ms \| \1 \+ 6, ms \|", done.stdout, re.MULTILINE)
    assert re.search(
        r"^The first listing of 6 plugins, each of which is asked: \d+\.\d s\.$", done.stdout, re.MULTILINE
    )


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--against", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is no checkout of forge" in done.stderr
