"""Plans: what is decided for each machine and why, what is refused, and that a plan survives being written down."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forge
from forge.api import Decision, Extension, Offer, Problem, Stage
from forge.api.plan import Plan, Task
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.keys import PluginKeys
from forge.errors import JobError, PlanError, PluginError, RunError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.job.read import parse
from forge.machine.machine import Accelerator
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import export_plan, make_plan

if TYPE_CHECKING:
    from forge.machine.machine import Machine

BASE = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\n'
HELD_OUT = f"{BASE}eval_size = 0.1\n"
FACTS = ModelFacts(id="m", source="unknown", task="text", dtype="bfloat16")
CUDA = PRESETS["linux-cuda"]
OLD_GPU = replace(CUDA, accelerators=(Accelerator("cuda", "Tesla T4", 16 * 2**30, "7.5", "580.95"),))
FOUR = BASE.replace('id = "m"', 'id = "m"\nload_in_4bit = true')
EIGHT = FOUR.replace("4bit", "8bit")


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    def make(text: str = BASE, machine: str | Machine = "linux-cuda", facts: ModelFacts = FACTS, **more: Any) -> Plan:
        plugins = more.pop("catalogue", catalogue)
        found = PRESETS[machine] if isinstance(machine, str) else machine
        return make_plan(parse(text, "job.toml", Path("/jobs"), PluginKeys(plugins)), plugins, found, facts, **more)

    return make


def reasons(plan: Plan) -> dict[str, str]:
    return {decision.key: decision.reason for decision in plan.decisions}


@pytest.mark.parametrize(
    ("machine", "dtype", "bf16", "fp16", "why"),
    [
        ("linux-cuda", "bfloat16", True, False, "the GPU computes in bfloat16"),
        ("linux-cpu", "float32", False, False, "no GPU is used"),
        ("windows-cpu", "float32", False, False, "no GPU is used"),
        ("windows-cuda-cpu-torch", "float32", False, False, "no GPU is used"),
        ("macos", "float32", False, False, "mixed precision is not reliable on Apple's GPUs"),
    ],
)
def test_precision_goes_by_the_machine_and_says_why(
    plan: Any, machine: str, dtype: str, bf16: bool, fp16: bool, why: str
) -> None:
    found = plan(machine=machine)
    assert (found.decided("model.dtype"), found.decided("train.bf16"), found.decided("train.fp16")) == (
        dtype,
        bf16,
        fp16,
    )
    assert reasons(found)["train.bf16"] == why
    assert all(decision.reason for decision in found.decisions)


def test_a_gpu_without_bfloat16_gets_float16(plan: Any) -> None:
    found = plan(machine=OLD_GPU)
    assert (found.decided("model.dtype"), found.decided("train.bf16"), found.decided("train.fp16")) == (
        "float16",
        False,
        True,
    )
    assert reasons(found)["train.fp16"] == "the GPU has no bfloat16"


def test_full_fine_tuning_keeps_its_weights_in_32_bit(plan: Any) -> None:
    found = plan(BASE + '[adapter]\ntype = "none"\n')
    assert found.decided("model.dtype") == "float32"
    assert "small updates vanish in 16 bit" in reasons(found)["model.dtype"]
    assert (found.decided("train.bf16"), found.decided("train.learning_rate")) == (True, 2e-5)
    assert plan().decided("train.learning_rate") == 2e-4


def test_what_the_job_says_is_no_decision(plan: Any) -> None:
    text = BASE.replace('id = "m"', 'id = "m"\ndtype = "float32"\nattn_implementation = "eager"')
    found = plan(text + "[train]\nlearning_rate = 1.0\nbf16 = false\nfp16 = false\n")
    assert {"model.dtype", "model.attn_implementation", "train.learning_rate", "train.bf16", "train.fp16"}.isdisjoint(
        reasons(found)
    )


def test_flash_attention_is_taken_only_where_it_is_installed_and_runs(plan: Any) -> None:
    def attention(machine: Machine) -> Any:
        return plan(machine=machine).decided("model.attn_implementation")

    def flash(machine: Machine) -> Machine:
        return replace(machine, versions={**machine.versions, "flash-attn": "2.8"})

    assert attention(CUDA) == "sdpa"
    assert attention(flash(CUDA)) == "flash_attention_2"
    assert attention(flash(OLD_GPU)) == "sdpa"
    assert attention(flash(PRESETS["linux-cpu"])) == "sdpa"


@pytest.mark.parametrize(
    ("text", "machine", "reason"),
    [
        (FOUR, "linux-cuda", None),
        (FOUR, "linux-cpu", None),
        (FOUR, "windows-cpu", "load_in_4bit needs bitsandbytes, which is not installed (pip install bitsandbytes)"),
        (FOUR, "macos", "load_in_4bit needs bitsandbytes"),
        (FOUR, "windows-cuda-cpu-torch", None),
        (EIGHT, "linux-cuda", None),
        (EIGHT, "linux-cpu", "trains 8 bit on a GPU only; take load_in_4bit"),
    ],
)
def test_quantised_loading_is_planned_or_refused_with_a_reason_and_never_forgotten(
    plan: Any, text: str, machine: str, reason: str | None
) -> None:
    if reason is None:
        found = plan(text, machine)
        assert found.step(Stage.LOAD).plugin == "huggingface"
        assert settle(load_job(found.job), found.decisions).model.bits == ("4bit" if text == FOUR else "8bit")
    else:
        with pytest.raises(PlanError, match=re.escape(reason)) as caught:
            plan(text, machine)
        assert str(caught.value).startswith("nothing can load: huggingface: ")


def test_bitsandbytes_has_no_kernels_for_apple_silicon_even_if_installed(plan: Any) -> None:
    mac = replace(PRESETS["macos"], versions={**PRESETS["macos"].versions, "bitsandbytes": "0.50"})
    with pytest.raises(PlanError, match="bitsandbytes has no kernels for darwin arm64"):
        plan(FOUR, mac)


def test_quantised_weights_are_not_trained_whole(plan: Any) -> None:
    with pytest.raises(PlanError, match="quantised weights cannot be trained; use an adapter"):
        plan(FOUR + '[adapter]\ntype = "none"\n')
    with pytest.raises(PlanError, match="the model is stored in gptq"):
        plan(BASE + '[adapter]\ntype = "none"\n', facts=replace(FACTS, quantized="gptq"))


def test_a_gpu_that_torch_cannot_use_is_said_in_the_plan(plan: Any) -> None:
    assert any("is a CPU build beside an NVIDIA" in note for note in plan(machine="windows-cuda-cpu-torch").notes)
    assert plan().notes == ()


def test_what_is_unknown_about_the_model_is_said_in_the_plan(plan: Any) -> None:
    assert "not verified" in plan(facts=replace(FACTS, note="offline; not verified")).notes[0]


def test_a_missing_package_is_refused_with_the_line_that_installs_it(plan: Any) -> None:
    versions = {name: version for name, version in CUDA.versions.items() if name != "peft"}
    with pytest.raises(PlanError, match=re.escape('peft is not installed (pip install "peft>=')):
        plan(machine=replace(CUDA, versions=versions))


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        (f"{BASE}streaming = true\n", "data.streaming", 5),
        (f'{BASE}[train]\neval_strategy = "epoch"\n', "train.eval_strategy", 6),
        (f"{BASE}[train]\nseed = 1\nearly_stopping_patience = 2\n", "train.early_stopping_patience", 7),
        (f'{BASE}[adapter]\ntype = "none"\n[[export]]\nformat = "adapter"\n', "export.0.format", 8),
        (
            f'{BASE}[adapter]\ntype = "none"\n[[export]]\nformat = "merged"\n[[export]]\nformat = "adapter"\n',
            "export.1.format",
            10,
        ),
    ],
)
def test_a_contradiction_between_tables_is_a_mistake_of_the_job_with_its_line(
    plan: Any, text: str, where: str, line: int
) -> None:
    with pytest.raises(JobError) as caught:
        plan(text)
    assert [(problem.where, problem.line) for problem in caught.value.problems] == [(where, line)]
    assert caught.value.problems[0].do


def test_streaming_with_max_steps_and_evaluation_with_rows_are_planned(plan: Any) -> None:
    plan(f"{BASE}streaming = true\n[train]\nmax_steps = 5\n")
    found = plan(f'{HELD_OUT}[train]\neval_strategy = "epoch"\nearly_stopping_patience = 2\n')
    assert "train.eval_strategy" not in reasons(found)


def test_held_out_rows_are_used_even_if_the_job_does_not_say_when(plan: Any) -> None:
    assert plan(HELD_OUT).decided("train.eval_strategy") == "epoch"
    assert plan().decided("train.eval_strategy") == "no"
    best = '[train]\nload_best_model_at_end = true\nsave_strategy = "steps"\n'
    assert plan(HELD_OUT + best).decided("train.eval_strategy") == "steps"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ('report_to = "wandb"', 'report_to = "wandb": wandb is not installed (pip install wandb)'),
        ('report_to = ["none", "mlflow"]', "(pip install mlflow)"),
        ('report_to = "wandbb"', 'report_to = "wandbb": no such tracker; there are azure_ml'),
        ("use_liger_kernel = true", "(pip install liger-kernel)"),
        ('optim = "adamw_bnb_8bit"', None),
        ("bf16 = true", None),
    ],
)
def test_what_an_argument_needs_is_checked_before_anything_starts(plan: Any, keys: str, reason: str | None) -> None:
    if reason is None:
        plan(f"{BASE}[train]\n{keys}\n")
    else:
        with pytest.raises(PlanError, match=re.escape(reason)):
            plan(f"{BASE}[train]\n{keys}\n")


def test_precision_that_the_machine_lacks_is_refused(plan: Any) -> None:
    with pytest.raises(PlanError, match="fp16: float16 training needs a GPU"):
        plan(f"{BASE}[train]\nfp16 = true\n", "linux-cpu")
    with pytest.raises(PlanError, match="bf16: this GPU has no bfloat16; write fp16"):
        plan(f"{BASE}[train]\nbf16 = true\n", OLD_GPU)


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


def test_a_broken_plugin_is_noted_and_harms_nothing(plan: Any, catalogue: Catalogue) -> None:
    found = plan(catalogue=strangers(catalogue, status="broken", reason="imports torch at discovery"))
    assert "plugin x (forge-x 1.0) is broken: imports torch at discovery" in found.notes


@pytest.mark.parametrize("hook", ["check", "decide"])
def test_a_plugin_that_fails_while_planning_is_named(plan: Any, catalogue: Catalogue, hook: str) -> None:
    def fail(*_: Any) -> list[Problem]:
        raise KeyError("beta")

    values: dict[str, Any] = {hook: fail}
    words = frozenset({"text", "4bit", "8bit", "full"})
    offer = Offer(stage=Stage.LOAD, impl="x:y", supports=words, provides=frozenset({"hf-model"}), **values)
    with pytest.raises(PluginError, match=re.escape("plugin x (forge-x 1.0) failed at planning: KeyError: 'beta'")):
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
    assert (plan(catalogue=found).preload, plan(catalogue=found).environment) == ((), {})
    named = plan(f'{BASE}[use]\nload = "x"\n', catalogue=found)
    assert (named.preload, named.environment) == (("x_first",), {"X_QUIET": "1"})
    assert named.step(Stage.LOAD).distribution == "forge-x"


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
