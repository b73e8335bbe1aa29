"""What is told of the harness's tasks while forge plans."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import JobError, PlanError, Stage
from forge.discovery.discover import discover
from forge.job.foreign import names_code
from forge.machine.presets import PRESETS
from support.planning import BASE, CUDA, FACTS, HELD_OUT, planner

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api.plan import Plan

ASKED = '[eval]\nmetrics = ["lm-eval:gsm8k"]\n'
THERE = replace(CUDA, versions={**CUDA.versions, "lm-eval": "0.4.13"})


@pytest.fixture(scope="module")
def plan() -> Callable[..., Plan]:
    return planner(discover({"FORGE_PLUGINS": "huggingface,lm-eval"}))


@pytest.fixture(scope="module")
def everything() -> Callable[..., Plan]:
    return planner(discover({}))


def evaluating(found: Plan) -> list[tuple[str, str]]:
    return [(step.label, step.plugin) for step in found.steps if step.stage is Stage.EVALUATE]


def test_the_plugin_evaluates_beside_what_asks_the_held_out_rows(plan: Callable[..., Plan]) -> None:
    found = plan(HELD_OUT + ASKED, machine=THERE)
    assert evaluating(found) == [("evaluate", "huggingface"), ("evaluate (lm-eval)", "lm-eval")]
    assert found.functions == {"lm-eval": "forge_lm_eval.evaluate:evaluate"}
    assert found.configs["lm-eval"]["limit"] is None


def test_no_other_job_needs_it(plan: Callable[..., Plan]) -> None:
    assert evaluating(plan(f"{HELD_OUT}[eval]\n", machine=THERE)) == [("evaluate", "huggingface")]


def test_no_held_out_rows_are_needed_for_it_alone(plan: Callable[..., Plan]) -> None:
    assert plan(BASE + ASKED, machine=THERE)
    with pytest.raises(JobError, match="no held-out rows"):
        plan(BASE + ASKED.replace('["', '["f1", "'), machine=THERE)


def test_the_missing_package_is_told_with_the_line_that_installs_it(plan: Callable[..., Plan]) -> None:
    with pytest.raises(PlanError) as caught:
        plan(HELD_OUT + ASKED)
    assert 'pip install "lm_eval>=0.4.12"' in str(caught.value)
    assert 'metrics = ["lm-eval:gsm8k"]' in str(caught.value)


@pytest.mark.parametrize("task", ["vision", "seq2seq"])
def test_models_of_another_kind_are_refused(plan: Callable[..., Plan], task: Any) -> None:
    with pytest.raises(PlanError, match=f"this one is of the kind {task}"):
        plan(HELD_OUT + ASKED, machine=THERE, facts=replace(FACTS, task=task))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[eval]\nmetrics = ["lm-eval:"]\n', "names no task"),
        (f'{ASKED}[plugins.lm-eval]\ninclude_path = "nowhere"\n', "there is no folder"),
        (f"{ASKED}[plugins.lm-eval]\nlimit = 0\n", "must be above 0"),
        (f"{ASKED}[plugins.lm-eval]\nshots = 0\n", "shots"),
    ],
)
def test_mistakes_are_told(plan: Callable[..., Plan], text: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        plan(HELD_OUT + text, machine=THERE)
    assert said in str(caught.value)


def test_a_folder_of_tasks_names_code() -> None:
    assert names_code(("plugins", "lm-eval", "include_path"), "tasks")
    assert names_code(("plugins", "lm-eval", "include_path", 0), "tasks")
    assert names_code(("eval", "metrics", 0), "lm-eval:gsm8k") is None


def test_a_model_of_transformers_answers_though_another_library_trains(everything: Callable[..., Plan]) -> None:
    mac = replace(PRESETS["macos-mlx"], versions={**PRESETS["macos-mlx"].versions, "lm-eval": "0.4.13"})
    for asked, plugin in ((ASKED, "huggingface"), ("[eval]\n", "mlx")):
        found = everything(HELD_OUT + asked, machine=mac)
        assert found.step(Stage.TRAIN).plugin == "mlx"
        assert {step.plugin for step in found.steps if step.stage is Stage.GENERATE} == {plugin}
