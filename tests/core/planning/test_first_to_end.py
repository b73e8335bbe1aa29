"""Of several offers that can serve, the one with which the training ends first is taken, where they can tell."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from forge.api import Offer, Stage
from forge.api.plan import Verdict
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.job.job import Job
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.needs import Need
from forge.planning.selection import select

if TYPE_CHECKING:
    from collections.abc import Sequence

LOAD, ADAPT = Need(Stage.LOAD, frozenset(), "load"), Need(Stage.ADAPT, frozenset(), "adapt")
FACTS = ModelFacts(id="m", source="unknown", task="text")
JOB = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d.jsonl"}})


def loader(name: str, pace: str | None, priority: int = 0, *, own: bool = True, **values: frozenset[str]) -> Plugin:
    reference = f"support.pacing:{pace}" if pace else None
    offer = Offer(stage=Stage.LOAD, impl="x:y", priority=priority, pace=reference, backend=name, **values)  # type: ignore[arg-type]
    return Plugin(name=name, distribution=OWN if own else f"forge-{name}", version="1", offers=(offer,))


def choose(*plugins: Plugin, wanted: Sequence[Need] = (LOAD,)) -> tuple[str, dict[str, Verdict]]:
    chosen, verdicts = select(wanted, Catalogue(plugins), PRESETS["linux-cuda"], JOB, FACTS)
    return chosen[0].plugin.name, {each.plugin: each for each in verdicts if each.label == "load"}


def test_the_one_that_ends_first_is_taken_before_the_one_of_higher_priority() -> None:
    taken, verdicts = choose(loader("a", "late", 50), loader("b", "soon"))
    assert taken == "b"
    assert verdicts["a"].reason == "30 s more to start, 1.1 times as fast; 100 steps end 20 s later (estimated)"
    assert verdicts["b"].reason == "ends first: 100 steps end after 1:50, 10 s of it to start (measured here)"


def test_what_ends_hardly_sooner_is_no_reason_to_leave_the_usual_choice() -> None:
    taken, verdicts = choose(loader("a", "nearly", 50), loader("b", "soon"))
    assert taken == "a"
    said = "4 s less to start, 1.0 times as fast; 100 steps end 4 s sooner (measured here)"
    assert verdicts["b"].reason == f"able too; a is preferred; {said}, too little to leave the usual choice"


@pytest.mark.parametrize(
    ("pace", "why"),
    [
        ("unknown", "b: the rows are far away"),
        ("failing", "b failed to say (KeyError: 'clock')"),
    ],
)
def test_where_one_cannot_tell_the_usual_choice_stays(pace: str, why: str) -> None:
    taken, verdicts = choose(loader("a", "late", 50), loader("b", pace))
    assert taken == "a"
    assert verdicts["b"].reason == f"able too; a is preferred; which ends first is unknown: {why}"


def test_one_that_imports_what_planning_must_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "trl"]:
        monkeypatch.delitem(sys.modules, name)
    taken, verdicts = choose(loader("a", "late", 50), loader("b", "heavy"))
    assert taken == "a"
    assert "b failed to say (HeavyImportError: imports trl at discovery" in verdicts["b"].reason
    assert "trl" not in sys.modules


def test_where_one_has_no_estimate_nothing_is_compared() -> None:
    taken, verdicts = choose(loader("a", None, 50), loader("b", "soon"))
    assert (taken, verdicts["b"].reason) == ("a", "able too; a is preferred")


def test_a_strangers_plugin_is_not_taken_for_being_faster() -> None:
    taken, verdicts = choose(loader("a", "late"), loader("b", "soon", own=False))
    assert (taken, "b" in verdicts) == ("a", False)  # nobody asked for it


def test_a_named_backend_stays() -> None:
    taken, verdicts = choose(
        loader("a", "late"), loader("b", "soon"), wanted=[replace(LOAD, backend="a", told='[use] backend = "a"')]
    )
    assert (taken, verdicts["a"].reason) == ("a", 'the job says [use] backend = "a"')


def test_one_that_ends_first_and_fits_no_other_stage_is_left_with_that_reason() -> None:
    adapter = Offer(stage=Stage.ADAPT, impl="x:y", depends=frozenset({"of-a"}))
    other = Plugin(name="c", distribution=OWN, version="1", offers=(adapter,))
    plugins = loader("a", "late", provides=frozenset({"of-a"})), loader("b", "soon"), other
    taken, verdicts = choose(*plugins, wanted=[LOAD, ADAPT])
    assert taken == "a"
    assert verdicts["b"].reason == "c (adapt) depends on of-a"
    assert verdicts["a"].reason.startswith("preferred among those that can; 100 steps end after 2:10")
