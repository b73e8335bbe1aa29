"""The benchmark of the memory estimate, with a small model on a CPU: that it runs, and what it counts, not the peak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="its folders are those of a POSIX system")
def test_a_case_is_measured_beside_its_estimate(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARK, "--sizes", "small", "--backends", "huggingface", "--modes", "LoRA"]
    command += ["--work", tmp_path / "work", "--out", tmp_path / "out", "--at-once", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "out" / "memory.json").exists(), done.stdout + done.stderr
    (case,) = json.loads((tmp_path / "out" / "memory.json").read_text(encoding="utf-8"))["cases"]
    assert "error" not in case
    assert case["length"] == 64
    weights = case["parts"]["weights"] + case["parts"]["adapter"]
    assert case["counted"]["weights"] == pytest.approx(weights, rel=0.001)
    assert case["counted"]["optimizer"] == case["parts"]["optimizer"]
    assert case["measured"] > weights
    assert "| small | LoRA | huggingface | 2 x 64 |" in (tmp_path / "out" / "memory.md").read_text(encoding="utf-8")
