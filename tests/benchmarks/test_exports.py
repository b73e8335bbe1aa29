"""The benchmark of merged exports: each comes out in the type of its base, and within the limit of that type."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "exports.py"


@pytest.mark.slow
def test_merged_models_are_in_the_type_and_of_the_size_of_their_base(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--out", str(tmp_path), "--work", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "exports.json").read_text(encoding="utf-8"))
    assert len(found) == 9
    for each in found:
        if each["asked"] == "auto":
            assert each["export"] == each["base"]
            assert each["export MiB"] == each["base MiB"]
        else:
            assert each["export"] == each["asked"]
        assert each["off"] is None or each["off"] <= each["limit"]
