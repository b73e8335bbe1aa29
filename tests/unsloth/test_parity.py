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

from support.tiny_vlm import make_vlm

# This folder is called unsloth too: found without an origin, it is no package.
INSTALLED = getattr(importlib.util.find_spec("unsloth"), "origin", None) is not None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason="unsloth is not installed")]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """What both trainers made of the same jobs."""
    folder = tmp_path_factory.mktemp("parity")
    sight = make_vlm(folder / "llava", "llava")  # its processor needs no torchvision
    return {side: child(side, "train", tiny_model, sight, folder / f"{side}.json") for side in ("plain", "unsloth")}


def child(side: str, task: str, *paths: Path) -> Any:
    """Let a child process do a task beside Unsloth's changes or without them, and return what it wrote."""
    out = paths[-1]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "UNSLOTH_ALLOW_CPU": "1",
        "UNSLOTH_COMPILE_DISABLE": "1",
        "UNSLOTH_COMPILE_LOCATION": str(out.parent / "compiled"),
        "UNSLOTH_DISABLE_AUTO_PADDING_FREE": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_FORCE_FLOAT32": "1",  # it would turn float16 on for a device without bfloat16
    }
    command = [sys.executable, str(Path(__file__).with_name("rewritten.py")), side, task, *map(str, paths)]
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


def test_the_trainer_really_is_unsloths(sides: dict[str, Any]) -> None:
    ours, theirs = (sides[side]["plain job"]["trainer"] for side in ("unsloth", "plain"))
    assert {"trainer", "config"} <= set(ours["patched"])
    assert ours["trainer"].startswith("UnslothSFTTrainer.")
    assert theirs["patched"] == []
    assert ours["trainable"] == theirs["trainable"]


TEXT = ["plain job", "held-out rows", "packing", "checkpointing", "accumulation", "resume"]
VISION = ["vision", "vision, language only", "vision, every weight", "vision, resume"]


@pytest.mark.parametrize("name", [*TEXT, *VISION])
def test_rows_and_losses_are_the_same(sides: dict[str, Any], name: str) -> None:
    ours, theirs = (sides[side][name] for side in ("unsloth", "plain"))
    assert ours["digest"] == theirs["digest"]
    assert len(ours["losses"]) == len(theirs["losses"]) == 4
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-4)
    assert ours["eval"] == pytest.approx(theirs["eval"], abs=1e-4)


def test_every_argument_is_the_same(sides: dict[str, Any]) -> None:
    ours, theirs = (sides[side]["plain job"]["arguments"] for side in ("unsloth", "plain"))
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize(("trained", "loaded"), [("unsloth", "plain"), ("plain", "unsloth")])
def test_an_adapter_of_one_is_an_adapter_of_the_other(
    sides: dict[str, Any], tmp_path: Path, tiny_model: Path, trained: str, loaded: str
) -> None:
    theirs = sides[trained]["plain job"]
    ours = child(loaded, "read", tiny_model, Path(theirs["adapter"]), tmp_path / "read.json")
    gaps = {name: largest(ours[name], theirs["logits"]) for name in ("adapted", "base")}
    assert gaps["adapted"] < 1e-4
    assert gaps["base"] > 100 * 1e-4  # it learned something that could have been lost


def largest(first: list[list[float]], second: list[list[float]]) -> float:
    """Return the largest difference of two tables of the same shape."""
    return max(abs(a - b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True))
