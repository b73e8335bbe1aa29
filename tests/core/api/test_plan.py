"""Plans on disk: a record for each task, whole or refused, and those of forge 0.1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forge
from forge.api import Stage
from forge.api.plan import Against, Answers, Export, Plan, Preview, Task, Training, Who, upgraded_plan
from forge.errors import PlanError, RunError
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from support.planning import HELD_OUT, planner

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue

OLD = Path(__file__).parents[2] / "runs" / "forge-0.1" / "runs" / "job" / "20260101-000001"
PARTS: dict[str, Any] = {
    "job": {"model": {"id": "m"}},
    "job_digest": "d",
    "source": "job.toml",
    "steps": (),
    "verdicts": (),
    "machine": PRESETS["linux-cpu"],
    "facts": ModelFacts(id="m", source="unknown"),
}
PLANS = [
    Training(**PARTS, resume=True, attempt=3),
    Training(**PARTS, task=Task.DRY_RUN),
    Preview(**PARTS, rows=4),
    Answers(**PARTS, task=Task.EVAL, models=(Who.BASE, Who.TUNED), target="evaluations/2.json"),
    Answers(**PARTS, task=Task.CHAT, models=(Who.GGUF,), gguf="/x.gguf"),
    Export(**PARTS, index=2),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.task)
def test_a_plan_is_the_same_once_it_was_a_file(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_json()))
    again = Plan.read(path)
    assert type(again) is type(plan)
    assert again == plan


def test_an_export_without_its_index_is_damaged_and_not_the_first_one(tmp_path: Path) -> None:
    data = Export(**PARTS, index=2).to_json()
    del data["index"]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match="is damaged: index is missing"):
        Plan.read(tmp_path / "plan.json")


def test_a_plan_to_do_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(Preview(**PARTS).to_json()))
    with pytest.raises(RunError, match="it is a plan to data, not a Training"):
        Training.read(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("plan.json", Training),
        ("evaluations/plans/evaluation.json", Answers),
        ("exports/1-adapter.plan.json", Export),
    ],
)
def test_plans_of_forge_0_1_are_read_as_those_of_today(name: str, kind: type[Plan]) -> None:
    plan = Plan.read(OLD / name)
    assert type(plan) is kind
    assert plan.schema == 2
    assert plan.job["train"]["max_steps"] == 4, "the plugins' keys stand in their tables"
    assert "options" not in plan.job["train"]
    assert upgraded_plan(plan.to_json()) == plan.to_json()


def test_verdicts_of_forge_0_1_get_a_kind() -> None:
    found = {(verdict.label, verdict.plugin): verdict.against for verdict in Plan.read(OLD / "plan.json").verdicts}
    assert found["load", "huggingface"] is None
    assert found["load", "unsloth-vision"] is Against.ABILITY
    assert found["load", "unsloth-text"] is Against.PROBE, "an old reason is kept, and its kind was not written down"


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
