"""Observers have a say in the plan, stand in it, and act on what is done with trained weights where they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Decision, Extension, Problem
from forge.discovery.catalogue import Catalogue, Plugin
from forge.errors import JobError, PlanError, PluginError
from forge.job.job import load_job
from forge.machine.presets import PRESETS
from forge.planning.observing import still_acting
from forge.planning.planner import export_plan
from forge.text.plan import describe
from support.planning import BASE, FACTS, planner

if TYPE_CHECKING:
    from collections.abc import Callable

WITH = f'{BASE}[use]\nwith = ["x"]\n'
MODULE = """
from forge.api import Table

class Settings(Table):
    colour: str = "blue"

class Strict(Table):
    table: str
"""


@pytest.fixture
def plan(catalogue: Catalogue, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Plan a job with a plugin x, which has one observer."""
    (tmp_path / "x_settings.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def make(text: str, **said: Any) -> Any:
        plugin = Plugin(
            name="x", distribution="forge-x", version="1.0", extensions=(Extension(impl="x.observer", **said),)
        )
        return planner(catalogue)(text, catalogue=Catalogue((*catalogue.plugins, plugin)))

    return make


def test_an_observer_that_acts_stands_in_the_plan_and_in_its_text(plan: Any) -> None:
    found = plan(WITH)
    assert found.observers == (("x", "x.observer"),)
    assert "observer  x" in describe(found).splitlines()
    assert "observer" not in describe(plan(BASE))


def test_an_observer_decides_what_the_job_leaves_open_and_what_no_stage_decides(plan: Any) -> None:
    def decide(machine: Any, job: Any, facts: Any) -> Any:
        yield Decision("data.on_bad_row", "drop", "it is watched")
        yield Decision("model.dtype", "float32", "no stage may be overruled")

    found = plan(WITH, decide=decide)
    assert found.decided("data.on_bad_row") == "drop"
    assert found.decided("model.dtype") == "bfloat16"
    assert plan(BASE, decide=decide).decided("data.on_bad_row") is None
    with pytest.raises(PluginError, match="decide of its observer failed"):
        plan(WITH.replace("[use]", 'on_bad_row = "error"\n[use]'), decide=decide)


def test_what_decides_is_told_which_keys_the_user_wrote_where_it_asks_for_them(plan: Any) -> None:
    def decide(machine: Any, job: Any, facts: Any, named: Any = ()) -> Any:
        if "data.on_bad_row" not in named:
            yield Decision("data.on_bad_row", "drop", "it is watched")

    assert plan(WITH, decide=decide).decided("data.on_bad_row") == "drop"
    assert plan(WITH.replace("[use]", 'on_bad_row = "error"\n[use]'), decide=decide).decided("data.on_bad_row") is None


def test_an_observer_finds_mistakes_of_the_job(plan: Any) -> None:
    def check(job: Any) -> Any:
        yield Problem("train.method", "cannot be watched")

    with pytest.raises(JobError, match="cannot be watched"):
        plan(WITH, check=check)
    plan(BASE, check=check)


def test_a_plan_has_the_own_tables_of_those_that_take_part_with_their_defaults(plan: Any) -> None:
    config = "x_settings:Settings"
    assert plan(BASE, config=config).configs == {}
    assert plan(WITH, config=config).configs == {"x": {"colour": "blue"}}
    assert plan(f'{BASE}[plugins.x]\ncolour = "red"\n', config=config).configs == {"x": {"colour": "red"}}
    with pytest.raises(PlanError, match="does not say how: its table has no default for table"):
        plan(WITH, config="x_settings:Strict")


def test_an_export_is_made_where_an_observer_of_the_run_is_not_installed(plan: Any, catalogue: Catalogue) -> None:
    job = load_job(plan(f'{WITH}[[export]]\nformat = "merged"\n').job)
    machine = PRESETS["linux-cpu"]
    made = export_plan(job, 0, catalogue, machine, FACTS, frozenset({"hf-model"}), "job.toml")
    assert made.observers == ()
    assert made.notes == ("the observer x does not act here: it is not installed",)
    there = Plugin(name="x", distribution="forge-x", version="1.0", extensions=(Extension(impl="x.observer"),))
    acting, lacking = still_acting(job, Catalogue((there,)), machine)
    assert ([each.extension.impl for each in acting], lacking) == (["x.observer"], [])
