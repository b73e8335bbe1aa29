"""A plan survives being written down, and says who made it where it cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import forge
from forge.api import Stage
from forge.api.plan import Plan
from forge.errors import PlanError, RunError
from support.planning import HELD_OUT, planner

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


def test_a_plan_survives_being_written_down(plan: Any, tmp_path: Path) -> None:
    text = f'{HELD_OUT}[[export]]\nformat = "merged"\n'
    found = replace(plan(text), observers=(("x", "x.observer"),), environment={"A": "1"}, preload=("p",), attempt=2)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(found.to_json()))
    again = Plan.read(path)
    assert again.to_json() == found.to_json()
    assert again.steps == found.steps
    assert again.verdicts == found.verdicts
    assert again.decisions == found.decisions
    assert again.machine == found.machine
    assert again.facts == found.facts
    assert again.observers == found.observers
    assert [step.label for step in again.steps] == ["collate", "load", "adapt", "train", "export 1 (merged)"]
    assert again.forge == forge.__version__
    with pytest.raises(PlanError, match="the plan has no stage train"):
        replace(again, steps=()).step(Stage.TRAIN)


def test_a_plan_of_another_schema_is_refused_with_the_version_that_made_it(plan: Any) -> None:
    data = {**plan().to_json(), "schema": 99, "forge": "9.9"}
    with pytest.raises(RunError, match=r"the plan has schema 99, this forge reads 2: the run was made by forge 9\.9"):
        Plan.from_json(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"platform"', '"plattform"'),
        lambda text: text.replace('"stage": "load"', '"stage": "lod"'),
        lambda text: text.replace('"verdicts"', '"verdict"'),
        lambda _text: "[]",
        lambda _text: '{"schema": 1}',
    ],
)
def test_a_damaged_plan_is_an_error_that_names_the_file(plan: Any, tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "plan.json"
    path.write_text(damage(json.dumps(plan().to_json())))
    with pytest.raises(RunError, match=r"plan\.json is damaged"):
        Plan.read(path)


def test_a_folder_without_a_plan_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run folder: it has no plan"):
        Plan.read(tmp_path / "plan.json")
