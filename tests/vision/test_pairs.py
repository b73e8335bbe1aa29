"""Preference pairs with images: the rows, the batches, and a run that prefers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tiny_vlm import ARCHS
from vision.looking import Collated

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision.conftest import VisionProject

    Projects = Callable[[str], VisionProject]


def make_pairs(project: VisionProject) -> None:
    """Turn the project's conversations into pairs: the answer, and a worse one."""
    path = project.folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    made: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        worse = {"role": "assistant", "content": f"No, {index}."}
        messages = row.pop("messages")
        made.append({**row, "prompt": messages[:-1], "chosen": messages[-1:], "rejected": [worse]})
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


@pytest.mark.parametrize(
    "arch", ["idefics3", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHS if arch != "idefics3")]
)
def test_pairs_with_images_train_and_are_preferred(projects: Projects, arch: str) -> None:
    project = projects(arch)
    make_pairs(project)
    project.write(train={"method": "dpo", "max_steps": 8, "learning_rate": 2e-2})
    done = project.perform()
    assert done.code == 0, done.printed
    steps = done.of_kind("step")
    assert abs(steps[0]["loss"] - 0.6931) < 1e-3  # ln 2: the model is its own reference
    assert steps[-1]["loss"] < 0.65
    assert steps[-1]["rewards/margins"] > 0


def test_a_reference_that_is_asked_before_says_the_same_of_pairs_with_images(projects: Projects) -> None:
    losses = []
    project = projects("idefics3")
    make_pairs(project)
    for before in (False, True):
        project.write(train={"method": "dpo", "max_steps": 2, "precompute_ref_log_probs": before})
        done = project.perform()
        assert done.code == 0, done.printed
        losses.append(done.losses)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_both_sides_of_a_batch_see_the_image_and_only_answers_are_in_the_loss(projects: Projects) -> None:
    project = projects("idefics3")
    make_pairs(project)
    project.write(train={"method": "dpo"})
    case = Collated(project)
    data, rows = case.data, [case.data.train[index] for index in range(2)]
    assert data.layout == "pairs"
    batch = data.collator(None)(rows)
    assert batch["input_ids"].shape[0] == 4
    assert batch["pixel_values"].shape[0] == 4
    for index, (row, side) in enumerate((row, side) for side in ("chosen", "rejected") for row in rows):
        ids = batch["input_ids"][index][batch["completion_mask"][index] == 1].tolist()
        assert ids == [label for label in row[f"{side}_labels"] if label != -100]
