"""Preference pairs with images: a run that prefers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.looking import make_pairs
from support.tiny_vlm import ARCHS

if TYPE_CHECKING:
    from support.looking import Projects


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
