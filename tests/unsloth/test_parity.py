"""Unsloth's rewritten trainers train as TRL's own: the same rows, the same losses. They run on a CPU for this.

Unsloth changes fifteen of TRL's defaults and parts of its trainers, for the whole process; so each side is a child
process that trains the same jobs (``rewritten.py``). The names that it uses are private to the tested Unsloth.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"),
]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """What both trainers made of the same jobs."""
    folder = tmp_path_factory.mktemp("parity")
    found = {}
    for side in ("plain", "unsloth"):
        out = folder / f"{side}.json"
        command = [sys.executable, str(Path(__file__).with_name("rewritten.py")), side, str(tiny_model), str(out)]
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "UNSLOTH_ALLOW_CPU": "1",
            "UNSLOTH_COMPILE_DISABLE": "1",
            "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"),
            "UNSLOTH_DISABLE_AUTO_PADDING_FREE": "1",
            "UNSLOTH_DISABLE_STATISTICS": "1",
            "UNSLOTH_FORCE_FLOAT32": "1",  # it would turn float16 on for a device without bfloat16
        }
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        found[side] = json.loads(out.read_text())
    return found


def test_the_trainer_really_is_unsloths(sides: dict[str, Any]) -> None:
    ours, theirs = (sides[side]["plain job"]["trainer"] for side in ("unsloth", "plain"))
    assert {"trainer", "config"} <= set(ours["patched"])
    assert ours["trainer"].startswith("UnslothSFTTrainer.")
    assert theirs["patched"] == []
    assert ours["trainable"] == theirs["trainable"]


@pytest.mark.parametrize("name", ["plain job", "held-out rows", "packing", "checkpointing", "accumulation", "resume"])
def test_rows_and_losses_are_the_same(sides: dict[str, Any], name: str) -> None:
    ours, theirs = (sides[side][name] for side in ("unsloth", "plain"))
    assert ours["digest"] == theirs["digest"]
    assert len(ours["losses"]) == len(theirs["losses"]) == 4
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-4)
    assert ours["eval"] == pytest.approx(theirs["eval"], abs=1e-4)


def test_every_argument_is_the_same(sides: dict[str, Any]) -> None:
    ours, theirs = (sides[side]["plain job"]["arguments"] for side in ("unsloth", "plain"))
    assert {name: ours[name] for name in theirs} == theirs
