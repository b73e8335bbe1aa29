"""Plans: who takes part, whose decision wins, what is noted, and what cannot be followed."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Decision, Extension, Offer, Problem, Stage
from forge.api.plan import Task
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.keys import PluginKeys
from forge.errors import PlanError, PluginError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.planning.planner import export_plan
from support.planning import BASE, CUDA, FACTS, planner

if TYPE_CHECKING:
    pass


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


def test_a_gpu_that_torch_cannot_use_is_said_in_the_plan(plan: Any) -> None:
    assert any("is a CPU build beside an NVIDIA" in note for note in plan(machine="windows-cuda-cpu-torch").notes)
    assert plan().notes == ()


def test_what_is_unknown_about_the_model_is_said_in_the_plan(plan: Any) -> None:
    assert "not verified" in plan(facts=replace(FACTS, note="offline; not verified")).notes[0]


def test_rows_that_are_not_here_are_told_and_what_may_lie_on_the_hub_is_not(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").touch()
    places = {
        "here.jsonl": None,
        "hear.jsonl": "did you mean here.jsonl?",
        "rows/here.jsonl": "mend the path, which starts at the job's folder",
        "./org/name": "mend the path, which starts at the job's folder",
        "org/name": None,
        "*.jsonl": None,
        "here[.]jsonl": None,
        f"{'x' * 300}.jsonl": None,  # no file can be called so; what reads it says it
    }
    job = f"{BASE}[eval]\npath = {json.dumps(list(places))}\n"
    told = [f"eval.path: {path} is not here, so a run would not begin; {do}" for path, do in places.items() if do]
    assert list(plan(text=job, folder=tmp_path).notes) == told


def test_a_missing_package_is_refused_with_the_line_that_installs_it(plan: Any) -> None:
    versions = {name: version for name, version in CUDA.versions.items() if name != "peft"}
    with pytest.raises(PlanError, match=re.escape('peft is not installed (pip install "peft>=')):
        plan(machine=replace(CUDA, versions=versions))


def test_a_decision_of_a_later_attempt_wins(plan: Any) -> None:
    relief = Decision("train.per_device_train_batch_size", 1, "the longest batch did not fit")
    found = plan(relief=[Decision("train.per_device_train_batch_size", 4, "first"), relief], attempt=2)
    assert found.decided("train.per_device_train_batch_size") == 1
    assert settle(load_job(found.job), found.decisions).train.options["per_device_train_batch_size"] == 1
    assert found.decided("train.nothing", "none") == "none"


def test_decisions_fill_what_the_job_left_open_and_nothing_else(plan: Any) -> None:
    found = plan(f"{BASE}[train]\nseed = 7\n")
    job = settle(load_job(found.job), found.decisions)
    assert (job.model.dtype, job.train.options["bf16"], job.train.options["seed"]) == ("bfloat16", True, 7)
    assert load_job(found.job).model.dtype == "auto"


def strangers(catalogue: Catalogue, *described: Offer | Extension, **values: Any) -> Catalogue:
    """Return the catalogue with a stranger's plugin ``x``."""
    plugin = Plugin(
        name="x",
        distribution="forge-x",
        version="1.0",
        offers=tuple(item for item in described if isinstance(item, Offer)),
        extensions=tuple(item for item in described if isinstance(item, Extension)),
        **values,
    )
    return Catalogue((*catalogue.plugins, plugin))


def test_an_observer_acts_only_if_the_job_names_it(plan: Any, catalogue: Catalogue) -> None:
    found = strangers(catalogue, Extension(impl="x.observer"))
    assert plan(catalogue=found).observers == ()
    assert plan(f'{BASE}[use]\nwith = ["x"]\n', catalogue=found).observers == (("x", "x.observer"),)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (None, "it is not installed"),
        ({"status": "broken", "reason": "imports torch"}, "imports torch"),
        ({}, "it has no observer"),
    ],
)
def test_an_observer_that_cannot_act_is_an_error(
    plan: Any, catalogue: Catalogue, plugin: dict[str, Any] | None, reason: str
) -> None:
    found = catalogue if plugin is None else strangers(catalogue, **plugin)
    with pytest.raises(PlanError, match=re.escape(f'[use] with = ["x"] cannot be followed: {reason}')):
        plan(f'{BASE}[use]\nwith = ["x"]\n', catalogue=found)


def test_an_observer_that_misses_a_package_is_an_error_with_the_install_line(plan: Any, catalogue: Catalogue) -> None:
    found = strangers(catalogue, Extension(impl="x.observer", requires_dist=("forge-surely-not-there",)))
    with pytest.raises(PlanError, match=r"plugin x cannot act on this run: .*pip install"):
        plan(f'{BASE}[use]\nwith = ["x"]\n', catalogue=found)


def test_a_table_of_a_plugin_that_was_not_chosen_is_noted(plan: Any, catalogue: Catalogue, tmp_path: Path) -> None:
    config = "forge.job.tables:UseTable"  # any pydantic model will do
    offer = Offer(stage=Stage.LOAD, impl="x:y", supports=frozenset({"vision"}), config=config)
    found = plan(f"{BASE}[plugins.x]\n", catalogue=strangers(catalogue, offer))
    assert "[plugins.x] does nothing here: x was not chosen" in found.notes


def test_a_broken_plugin_leaves_no_trace_in_a_plan_unless_the_job_asks_for_it(plan: Any, catalogue: Catalogue) -> None:
    broken = strangers(catalogue, status="broken", reason="imports torch at discovery")
    assert plan(catalogue=broken) == plan()
    wished = plan(f'{BASE}[use]\nprefer = ["x"]\n', catalogue=broken)
    assert "[use] prefer names x, which is broken: imports torch at discovery" in wished.notes


def test_a_name_in_forge_plugins_that_no_plugin_has_is_a_note(plan: Any, catalogue: Catalogue) -> None:
    (told,) = set(plan(catalogue=replace(catalogue, missed=("huggingfce",))).notes) - set(plan().notes)
    assert told == "FORGE_PLUGINS names huggingfce, and there is no such plugin here; did you mean huggingface?"


@pytest.mark.parametrize("said", ["3", "1 / 0", "exit()"])
def test_an_estimate_that_goes_wrong_is_a_note(
    plan: Any, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "estimates.py").write_text(f"def estimate(machine, job, facts):\n    return {said}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "estimates", raising=False)
    words, given = frozenset({"text", "4bit", "8bit", "full"}), frozenset({"hf-model"})
    offer = Offer(stage=Stage.LOAD, impl="x:y", supports=words, provides=given, estimate="estimates:estimate")
    found = plan(f'{BASE}[use]\nload = "x"\n', catalogue=strangers(catalogue, offer))
    assert found.estimate is None
    assert [note.partition(" (")[0] for note in found.notes][-1] == "the memory is not estimated: x failed at it"


@pytest.mark.parametrize("hook", ["check", "decide"])
def test_a_plugin_that_fails_while_planning_is_named(plan: Any, catalogue: Catalogue, hook: str) -> None:
    def fail(*_: Any) -> list[Problem]:
        raise KeyError("beta")

    values: dict[str, Any] = {hook: fail}
    words = frozenset({"text", "4bit", "8bit", "full"})
    offer = Offer(stage=Stage.LOAD, impl="x:y", supports=words, provides=frozenset({"hf-model"}), **values)
    with pytest.raises(PluginError, match=rf"\(forge-x 1.0\): its {hook} of load failed: KeyError: 'beta'"):
        plan(f'{BASE}[use]\nload = "x"\n', catalogue=strangers(catalogue, offer))


def test_environment_and_preload_come_from_what_was_chosen_alone(plan: Any, catalogue: Catalogue) -> None:
    offer = Offer(
        stage=Stage.LOAD,
        impl="x:y",
        supports=frozenset({"text"}),
        provides=frozenset({"hf-model"}),
        preload=("x_first",),
        environment={"X_QUIET": "1"},
    )
    found = strangers(catalogue, offer)
    usual = plan(catalogue=found)
    assert ("x_first" in usual.preload, usual.environment) == (False, {})
    named = plan(f'{BASE}[use]\nload = "x"\n', catalogue=found)
    assert ("x_first" in named.preload, named.environment) == (True, {"X_QUIET": "1"})
    assert named.step(Stage.LOAD).distribution == "forge-x"


def test_what_changes_others_is_imported_before_them(plan: Any, catalogue: Catalogue) -> None:
    """The rows' offer stands first in the plan, and imports transformers."""
    values: dict[str, Any] = {"preload": ("x_first",), "patches": frozenset({"x_first"})}
    words, traits = frozenset({"text"}), frozenset({"hf-model"})
    offer = Offer(stage=Stage.LOAD, impl="x:y", supports=words, provides=traits, **values)
    named = plan(f'{BASE}[use]\nload = "x"\n', catalogue=strangers(catalogue, offer))
    assert named.preload[0] == "x_first"
    assert "torch" in named.preload


def test_looking_at_rows_plans_collating_alone(plan: Any) -> None:
    assert [step.stage for step in plan(task=Task.DATA).steps] == [Stage.COLLATE]


def test_an_export_is_planned_afresh_from_the_traits_of_the_weights(catalogue: Catalogue) -> None:
    text = f'{BASE}[[export]]\nformat = "adapter"\n[[export]]\nformat = "merged"\n'
    job = parse(text, "job.toml", Path("/jobs"), PluginKeys(catalogue)).job
    cpu = PRESETS["linux-cpu"]
    found = export_plan(job, 1, catalogue, cpu, FACTS, frozenset({"hf-model"}), "job.toml")
    assert (found.task, found.index, [step.label for step in found.steps]) == ("export", 1, ["export 2 (merged)"])
    with pytest.raises(PlanError, match="depends on hf-model"):
        export_plan(job, 1, catalogue, cpu, FACTS, frozenset({"gguf"}), "job.toml")


@pytest.mark.parametrize(
    ("hook", "found", "why"),
    [
        ("check", [3], "it yields int where forge.api.Problem is due"),
        ("check", "no", "it yields str where forge.api.Problem is due"),
        ("decide", [Problem("model", "x")], "it yields Problem where forge.api.Decision is due"),
        ("decide", [Decision("model.dtpe", "x", "x")], "it decides model.dtpe, which is no key that a plan decides"),
        ("decide", [Decision("model.id", "other", "x")], "it decides model.id, which is no key that a plan decides"),
        ("decide", [Decision("use.train", "x", "x")], "it decides use.train, which is no key that a plan decides"),
        ("decide", [Decision("use.load", "x", "x")], "it decides use.load, which is no key that a plan decides"),
        ("decide", [Decision("adapter.r", 1.5, "x")], "it decides adapter.r = 1.5, which cannot be: it must be"),
        ("decide", [Decision("train.learning_rate", "fast", "x")], 'it decides train.learning_rate = "fast", which'),
        ("decide", [Decision("foo.bar", 1, "x")], "it decides foo.bar, which is no key that a plan decides"),
    ],
)
def test_a_plugin_that_yields_something_else_while_planning_is_named(
    plan: Any, catalogue: Catalogue, hook: str, found: Any, why: str
) -> None:
    values: dict[str, Any] = {hook: lambda *_: found}
    words = frozenset({"text", "4bit", "8bit", "full"})
    offer = Offer(stage=Stage.LOAD, impl="x:y", supports=words, provides=frozenset({"hf-model"}), **values)
    with pytest.raises(PluginError, match=re.escape(f"plugin x (forge-x 1.0): its {hook} of load failed: {why}")):
        plan(f'{BASE}[use]\nload = "x"\n', catalogue=strangers(catalogue, offer))


def test_a_key_that_the_job_sets_is_not_for_a_plugin_to_decide(plan: Any, catalogue: Catalogue) -> None:
    words = frozenset({"text", "4bit", "8bit", "full"})
    decided = [Decision("train.learning_rate", 7.0, "x"), Decision("model.dtype", "float32", "x")]
    offer = Offer(
        stage=Stage.LOAD, impl="x:y", supports=words, provides=frozenset({"hf-model"}), decide=lambda *_: decided
    )
    use, found = '[use]\nload = "x"\n', strangers(catalogue, offer)
    said = re.escape("(forge-x 1.0): its decide of load failed: it decides train.learning_rate, which the job sets")
    for rate in ("2.0", "0.0002"):  # the second is the default, and was written all the same
        with pytest.raises(PluginError, match=said):
            plan(f"{BASE}[train]\nlearning_rate = {rate}\n{use}", catalogue=found)
    opened = BASE.replace('id = "m"', 'id = "m"\ndtype = "auto"')
    assert plan(f"{opened}{use}", catalogue=found).decided("model.dtype") == "float32"
    assert plan(f"{BASE}{use}", catalogue=found).decided("train.learning_rate") == 7.0
