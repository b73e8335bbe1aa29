"""The example learns: SDPO does what GRPO cannot, from one file, and the one that GRPO can is no straw man."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "sdpo_codes"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its model."""
    folder = tmp_path_factory.mktemp("codes")
    for name in ("job.toml", "rewards.py"):
        shutil.copy(EXAMPLE / name, folder / name)
    subprocess.run([sys.executable, EXAMPLE / "prepare.py", "--folder", folder], check=True, capture_output=True)
    return folder


def accuracy(folder: Path, method: str, seed: int, *changes: str) -> float:
    """Sampled accuracy of the last step."""
    runs = folder / f"runs-{method}-{seed}-{len(changes)}"
    command = [sys.executable, "-m", "forge", "run", "job.toml", "--runs-dir", str(runs)]
    command += ["--set", f"train.method={method}", "--set", f"train.seed={seed}"]
    command += [part for change in changes for part in ("--set", change)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = runs.glob("*/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    last = [event for event in events if event["kind"] == "eval"][-1]
    assert last["step"] == 100
    return last["eval_reward"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sdpo_learns_what_grpo_cannot(example, seed):
    assert accuracy(example, "sdpo", seed) >= 0.55
    assert accuracy(example, "grpo", seed) <= 0.2


@pytest.mark.slow
def test_grpo_learns_the_easier_task(example):
    assert accuracy(example, "grpo", 1, "train.reward.0.args={digits=1}") >= 0.4
