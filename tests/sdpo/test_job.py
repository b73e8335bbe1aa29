"""SDPO from a job file: what is refused, which recipe is taken, and what a run leaves."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from forge.api import Data, ModelFacts, PlanError, Stage
from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import JobError
from forge.job.read import read
from forge.machine.probe import probe
from forge.planning.planner import make_plan
from forge_huggingface.facts.describe import describe
from forge_sdpo import preflight
from forge_sdpo.options import Sdpo
from forge_sdpo.teacher import FILE
from support import machines
from support.projects import cut_after, perform_in, step_now, wait_for, worker_pid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Finding
    from forge.api.plan import Plan
    from support.sdpo.project import SdpoProject


def planned(project: SdpoProject) -> Plan:
    file = read(project.folder / "job.toml", PluginKeys(discover({})))
    return make_plan(file, discover({}), probe(), describe("model", None, project.folder))


def mistakes(project: SdpoProject) -> dict[str, str]:
    with pytest.raises(JobError) as caught:
        planned(project)
    assert all(problem.line for problem in caught.value.problems)
    return {problem.where: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("alpha", 1.5, "at most 1"),
        ("distillation_topk", 0, "at least 1"),
        ("teacher", "slow", '"ema", "trust-region", "frozen" or "live"'),
        ("teacher_update_rate", 7.0, "at most 1"),
        ("enabled", False, 'method = "grpo"'),
        ("policy_weight", 1.0, "below 1"),
        ("reprompt_template", "{prompt} {solution}", "lacks {feedback}"),
        ("feedback_template", "wrong", "lacks {feedback_raw}"),
        ("solution_template", "{successful_previous_attempt} {prompt}", "a field of another template"),
        ("distilation_topk", 5, "did you mean distillation_topk?"),
    ],
)
def test_a_mistake_is_told_with_its_line(project, key, value, said):
    project.write(plugins={"sdpo": {key: value}})
    with pytest.raises(JobError) as caught:
        planned(project)
    (problem,) = caught.value.problems
    assert problem.where == f"plugins.sdpo.{key}"
    assert problem.line
    assert said in f"{problem.message}; {problem.do}"


@pytest.mark.parametrize(
    "table",
    [
        {"objective": "sampled", "alpha": 0.5},
        {"objective": "full", "distillation_topk": 5},
        {"teacher": "frozen", "teacher_update_rate": 0.1},
        {"use_successful_as_teacher": False, "feedback": "never"},
    ],
)
def test_what_would_do_nothing_is_refused(project, table):
    project.write(plugins={"sdpo": table})
    assert mistakes(project)


def test_what_only_grpos_loss_has_is_refused(project):
    project.write(train={"beta": 0.1, "loss_type": "grpo", "steps_per_generation": 3})
    assert set(mistakes(project)) == {"train.beta", "train.loss_type", "train.steps_per_generation"}


def test_a_job_without_rewards_is_refused(project):
    project.write(train={"reward": []})
    assert "learns from rewards" in mistakes(project)["train.reward"]


def test_the_guides_names_are_accepted(project):
    project.write(
        plugins={"sdpo": {"enabled": True, "alpha": 0.5, "distillation_topk": 100, "teacher_update_rate": 0.05}}
    )
    assert not [d for d in planned(project).decisions if d.key.startswith("plugins.sdpo.alpha")]


def test_grpo_takes_the_same_file(project):
    project.write(train={"method": "grpo"}, plugins={"sdpo": {"teacher": "frozen"}})
    plan = planned(project)
    assert any("[plugins.sdpo] does nothing here" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("changes", "alpha", "topk", "rate", "feedback"),
    [
        ({}, 0.5, 100, 0.05, "never"),
        ({"train": {"reward": [{"use": "./telling.py:told"}]}}, 1.0, 20, 0.01, "without-solution"),
        ({"plugins": {"sdpo": {"feedback_column": "answer"}}}, 1.0, 20, 0.01, "without-solution"),
    ],
)
def test_the_recipe_goes_by_whether_there_can_be_feedback(project, changes, alpha, topk, rate, feedback):
    project.write(**changes)
    found = {d.key: d.value for d in planned(project).decisions if d.key.startswith("plugins.")}
    assert found == {
        "plugins.sdpo.alpha": alpha,
        "plugins.sdpo.distillation_topk": topk,
        "plugins.sdpo.teacher_update_rate": rate,
        "plugins.sdpo.feedback": feedback,
    }


def test_a_recipe_yields_to_the_job(project):
    project.write(plugins={"sdpo": {"alpha": 0.25, "objective": "full", "teacher": "frozen"}})
    found = {d.key: d.value for d in planned(project).decisions if d.key.startswith("plugins.")}
    assert found == {"plugins.sdpo.feedback": "never"}


def test_code_tests_can_give_feedback_and_choice_cannot(project):
    project.write(train={"reward": [{"use": "code-tests", "args": {"column": "answer"}}]})
    found = {d.key: d.value for d in planned(project).decisions}
    assert found["plugins.sdpo.feedback"] == "without-solution"


@pytest.mark.parametrize(
    ("weights", "warned"), [([1.0], False), ([0.5], True), ([0.5, 0.5], False), ([1.5, -1], False)]
)
def test_a_threshold_out_of_reach_is_warned_of(weights, warned):
    assert bool(list(preflight.threshold(weights, Sdpo()))) is warned


def rows(*given: dict[str, object]) -> Data:
    return Data(processor=None, train=list(given), eval={}, layout="prompts", digest="")


def first(found: Iterable[Finding]) -> str:
    return next(iter(found)).message


def test_prompts_are_looked_at_before_the_model_is_loaded(project):
    turn = {"role": "user", "content": "Hi"}
    good = {"prompt": [turn], "origin": "rows.jsonl:1"}
    bad = {"prompt": [turn, {"role": "assistant", "content": "Ho"}], "origin": "rows.jsonl:2"}
    picture = {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "origin": "rows.jsonl:3"}
    assert not list(preflight.prompts([good], Sdpo()))
    assert "rows.jsonl:2" in first(preflight.prompts([good, bad], Sdpo()))
    assert "text only" in first(preflight.prompts([picture], Sdpo()))
    column = Sdpo(feedback_column="hint")
    assert "no column hint" in first(preflight.prompts([good], column))
    assert not list(preflight.prompts([good | {"hint": ""}], column))


def test_a_live_teacher_and_an_alpha_at_the_edge_are_warned_of(project):
    job = SimpleNamespace(
        plugins={"sdpo": {"teacher": "live", "alpha": 0.01}}, train=SimpleNamespace(options={"reward": [{"use": "x"}]})
    )
    said = [finding.message for finding in preflight.findings(job, None, rows())]  # type: ignore[arg-type]  # findings are told without the run
    assert any("diverged" in text for text in said)
    assert any("alpha = 0.01 is not nearly 0" in text for text in said)


def test_forges_kernels_change_nothing(project):
    losses = []
    for kernels in ("none", ["lora", "swiglu", "norm", "rope"]):
        project.write(train={"max_steps": 2, "kernels": kernels, "reward": [{"use": "./telling.py:told"}]})
        done = project.perform()
        assert done.code == 0, done.printed
        assert bool(done.of_kind("trainer")[0]["kernels"]) == (kernels != "none")
        losses.append(done.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_resumes_to_the_same_bits(project):
    project.write(
        train={"max_steps": 6, "save_steps": 2, "reward": [{"use": "./telling.py:told"}]},
        plugins={"sdpo": {"teacher_update_rate": 0.3}},
        adapter={"lora_dropout": 0.1},
    )
    done = project.perform()
    assert done.code == 0, done.printed
    adapter = done.folder.path / "adapter" / "adapter_model.safetensors"
    last = done.folder.checkpoints / "checkpoint-6" / FILE
    whole, teacher = adapter.read_bytes(), last.read_bytes()
    assert {path.name for path in (done.folder.path / "adapter").glob("*.safetensors")} == {adapter.name}
    steps = done.of_kind("step")
    assert all(math.isfinite(step["loss"]) for step in steps)
    assert steps[0]["sdpo/with_teacher"] > 0

    cut_after(done.folder, 4)
    again = perform_in(Run(folder=done.folder.path, plan=replace(done.folder.plan(), resume=True)), done.folder)
    assert again.code == 0, again.printed
    assert adapter.read_bytes() == whole
    assert last.read_bytes() == teacher


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_killed_run_ends_in_the_same_bits(project):
    project.write(train={"max_steps": 24, "save_steps": 4, "reward": [{"use": "./telling.py:told"}]})
    project.forge("run", "job.toml")
    name = "adapter/adapter_model.safetensors"
    whole = (project.newest().path / name).read_bytes()
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 10)
    os.kill(worker_pid(folder), signal.SIGKILL)
    process.communicate(timeout=60)
    assert folder.trained() is None, "killed too late"
    assert "going on from checkpoint-" in project.forge("resume", str(folder.path))
    assert (folder.path / name).read_bytes() == whole


def test_under_unsloth_huggingface_loads_and_the_plan_says_why(project):
    project.write()
    file = read(project.folder / "job.toml", PluginKeys(discover({})))
    facts = ModelFacts(id="m", source="folder", architectures=("LlamaForCausalLM",), model_type="llama")
    plan = make_plan(file, discover({}), machines.FIT, facts)
    assert plan.step(Stage.LOAD).plugin == "huggingface"
    why = next(v.reason for v in plan.verdicts if (v.label, v.plugin) == ("load", "unsloth-text"))
    assert 'has not compared method = "sdpo"' in why


def test_a_vision_model_is_refused(project):
    project.write()
    file = read(project.folder / "job.toml", PluginKeys(discover({})))
    facts = replace(describe("model", None, project.folder), task="vision")
    with pytest.raises(PlanError, match="models that take pictures"):
        make_plan(file, discover({}), probe(), facts)


def test_a_lock_is_a_job_that_plans_the_same(project):
    project.write(plugins={"sdpo": {"objective": "sampled", "teacher": "frozen"}}, train={"max_steps": 1})
    _, folder = project.prepare()
    file = read(folder.path / "job.lock.toml", PluginKeys(discover({})))
    table = file.job.plugins["sdpo"]
    assert table["alpha"] == 1.0
    assert table["distillation_topk"] is None


def test_the_rows_columns_can_hold_the_feedback(project):
    project.write(
        train={"max_steps": 1, "reward": [{"use": "./rewards.py:even"}]},
        plugins={"sdpo": {"feedback_column": "answer", "use_successful_as_teacher": False, "feedback": "always"}},
    )
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.of_kind("step")[0]["sdpo/with_feedback"] == 1


def test_feedback_that_no_source_showed_is_noticed(project):
    project.write(train={"max_steps": 2, "reward": [{"use": "./hidden.py:function"}]})
    done = project.perform()
    assert done.code == 0, done.printed
    assert [w["message"] for w in done.of_kind("warning")].count(
        "a reward gives feedback, and it is not used: no source of a reward has the word"
    ) == 1
    assert done.of_kind("step")[0]["sdpo/with_feedback"] == 0


def test_what_is_logged_can_be_written_as_json(project):
    project.write(train={"max_steps": 1}, plugins={"sdpo": {"teacher": "trust-region"}})
    done = project.perform()
    assert done.code == 0, done.printed
    assert json.dumps(done.of_kind("step"))
    assert torch.isfinite(torch.tensor(done.losses)).all()


def test_the_teacher_begins_as_the_adapter_that_the_run_goes_on_from(project):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(project.folder / "model")
    start = get_peft_model(
        base, LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", target_modules=["q_proj"])
    )
    start.save_pretrained(project.folder / "start")
    project.write(
        adapter={"r": None, "lora_alpha": None, "from": "start"},
        plugins={"sdpo": {"teacher": "frozen"}},
        train={"max_steps": 2, "save_steps": 2},
    )
    done = project.perform()
    assert done.code == 0, done.printed
    held = load_file(done.folder.checkpoints / "checkpoint-2" / FILE)
    before = load_file(project.folder / "start" / "adapter_model.safetensors")
    assert len(held) == len(before)
    assert {name.replace(".default", ""): value.tolist() for name, value in held.items()} == {
        name: value.tolist() for name, value in before.items()
    }
