"""The benchmark against TRL, with a tiny model: the losses and weights, not the speed, which a test cannot judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "trl_parity.py"


@pytest.mark.skipif(sys.platform == "win32", reason="the benchmark measures memory as POSIX systems do")
@pytest.mark.parametrize(
    "arguments", [["--dropout", "0.05"], pytest.param(["--full"], marks=pytest.mark.slow)], ids=["lora", "full"]
)
def test_a_run_has_the_losses_and_weights_of_a_plain_trl_script(tmp_path, arguments):
    command = [sys.executable, BENCHMARK, "--tiny", "--pairs", "1", "--steps", "6", "--out", tmp_path, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "parity.json").exists(), done.stdout + done.stderr
    found = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert found["loss_difference"] <= 1e-6
    assert found["token_difference"] == 0
    assert found["weights_equal"]
    losses = found["pairs"][0]["forge"]["losses"]
    assert len(set(losses)) == 6  # it did train
