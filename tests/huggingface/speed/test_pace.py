"""Which backend ends first: start-up and steps, by shares of the limit or by what was measured on the machine."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk import speeds
from forge.disk.speeds import Timed
from forge.job.read import parse
from forge.machine.machine import Accelerator
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from forge_huggingface.facts.shape import from_config
from support.machines import FIT

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api.plan import Plan

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
FACTS = ModelFacts(
    id="m",
    source="unknown",
    architectures=("LlamaForCausalLM",),
    model_type="llama",
    task="text",
    dtype="bfloat16",
    parameters=1_235_814_400,
    context=131072,
    chat_template=True,
    shape=from_config(LLAMA),
)
H200 = replace(FIT, accelerators=(Accelerator("cuda", "NVIDIA H200", 141 * 2**30, "9.0", "580.95.05"),))
BACKENDS = ("huggingface", "unsloth-text")


@pytest.fixture(autouse=True)
def empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))


def plan(folder: Path, rows: int, *more: str, machine: Any = H200, facts: ModelFacts = FACTS, **train: Any) -> Plan:
    """Plan a job of rows of about 1,000 tokens, by default without forge's kernels, which Unsloth is no faster than."""
    (folder / "rows.jsonl").write_text((json.dumps({"text": "word " * 800}) + "\n") * rows)
    usual = {"per_device_train_batch_size": 4, "gradient_checkpointing": True, "num_train_epochs": 1}
    options = usual | {"kernels": "none"} | train
    lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    text = "\n".join(['[model]\nid = "m"\n[data]\npath = "rows.jsonl"\n[train]', *lines, *more])
    plugins = discover({"FORGE_PLUGINS": "huggingface,unsloth-text"})
    return make_plan(parse(text, "job.toml", folder, PluginKeys(plugins)), plugins, machine, facts)


def loader(made: Plan) -> str:
    return next(step.plugin for step in made.steps if step.stage == "load")


def said(made: Plan) -> dict[str, str]:
    return {verdict.plugin: verdict.reason for verdict in made.verdicts if verdict.label == "load"}


def run(backend: str, start: float, flops: float, **more: Any) -> Timed:
    values = {
        "parameters": 1_235_814_400,
        "bits": None,
        "checkpointing": True,
        "tokens_per_second": 1.0,
        "when": time.time(),
    }
    return Timed(backend=backend, start=start, flops=flops, **values | more)


def test_a_short_run_takes_the_backend_that_starts_sooner_and_a_long_one_the_faster(tmp_path: Path) -> None:
    short, long = plan(tmp_path, 40), plan(tmp_path, 4000)
    assert loader(short) == "huggingface"
    assert [step.plugin for step in short.steps if step.stage == "adapt"] == ["huggingface"]
    assert said(short)["unsloth-text"].startswith("14 s more to start, 1.6 times as fast; 10 steps end ")
    assert said(short)["unsloth-text"].endswith(" s later (estimated)")
    assert said(short)["huggingface"].startswith("ends first: 10 steps end after 21 s, 20 s of it to start")
    assert loader(long) == "unsloth-text"
    assert said(long)["huggingface"].startswith("14 s less to start, 0.61 times as fast; 1000 steps end ")
    assert "1000 steps end after " in said(long)["unsloth-text"]


def test_with_forges_kernels_transformers_end_first(tmp_path: Path) -> None:
    assert loader(plan(tmp_path, 40, kernels="auto")) == "huggingface"
    made = plan(tmp_path, 4000, kernels="auto")
    assert said(made)["unsloth-text"].startswith("9 s more to start, 1.0 times as fast; 1000 steps end ")


def test_a_named_backend_stays(tmp_path: Path) -> None:
    assert loader(plan(tmp_path, 40, '[use]\nbackend = "unsloth"')) == "unsloth-text"


def test_what_is_not_known_leaves_the_usual_choice_and_is_said(tmp_path: Path) -> None:
    made = plan(tmp_path, 40, '[use]\ncollate = "huggingface"', facts=replace(FACTS, shape=None))
    assert loader(made) == "unsloth-text"
    reason = "the operations of this model and method are not counted"
    assert said(made)["huggingface"] == (
        f"able too; unsloth-text is preferred; which ends first is unknown: unsloth-text: {reason}"
    )
    unknown = replace(H200, accelerators=(replace(H200.accelerators[0], name="NVIDIA something"),))
    assert "nothing is known of how fast this device is" in said(plan(tmp_path, 40, machine=unknown))["huggingface"]


def test_rows_that_are_not_here_are_not_guessed(tmp_path: Path) -> None:
    made = plan(tmp_path, 40, '[data.columns]\ntext = "text"')
    assert loader(made) == "huggingface"
    (tmp_path / "rows.jsonl").unlink()
    text = '[model]\nid = "m"\n[data]\npath = "org/rows"\n[train]\nmax_steps = 5'
    plugins = discover({"FORGE_PLUGINS": "huggingface,unsloth-text"})
    made = make_plan(parse(text, "job.toml", tmp_path, PluginKeys(plugins)), plugins, H200, FACTS)
    assert loader(made) == "unsloth-text"
    assert "the rows of org/rows are not on this machine" in said(made)["huggingface"]


def test_what_ran_here_comes_before_the_shares(tmp_path: Path) -> None:
    """Here transformers are as fast as Unsloth."""
    for backend, start in (("huggingface", 8.0), ("unsloth-text", 30.0)):
        assert speeds.add(H200, run(backend, start, 4e14)) is None
    made = plan(tmp_path, 4000, kernels="auto")
    assert loader(made) == "huggingface"
    assert (
        said(made)["unsloth-text"] == "22 s more to start, 1.0 times as fast; 1000 steps end 22 s later (measured here)"
    )


def test_one_that_has_not_run_here_is_compared_on_equal_terms(tmp_path: Path) -> None:
    """The machine reaches a tenth of what the shares say: of Unsloth's too."""
    speeds.add(H200, run("huggingface", 20.0, 0.1 * 0.18 * 989e12))
    made = plan(tmp_path, 400)
    assert loader(made) == "unsloth-text"
    assert "0.61 times as fast" in said(made)["huggingface"]
    assert said(made)["huggingface"].endswith("(measured here)")
    assert said(made)["unsloth-text"].endswith("(estimated)")


def test_runs_of_other_versions_or_machines_are_not_used(tmp_path: Path) -> None:
    for machine in (replace(H200, versions={**H200.versions, "torch": "2.0"}), replace(H200, cores=3)):
        for backend in BACKENDS:
            speeds.add(machine, run(backend, 1.0, 1e12))
    found = speeds.read(H200)
    assert (found.runs, found.stale) == ((), 1 * len(BACKENDS))
    assert "(estimated)" in said(plan(tmp_path, 40))["huggingface"]


@pytest.mark.parametrize(
    ("text", "why"), [('[{"machine": 3}]', "machine"), ("null", "holds no list of runs"), ("{", "JSONDecodeError")]
)
def test_a_damaged_table_is_told_and_begun_anew(text: str, why: str, tmp_path: Path) -> None:
    speeds.table().parent.mkdir(parents=True)
    speeds.table().write_text(text)
    assert "cannot be read" in speeds.read(H200).fault
    assert why in speeds.read(H200).fault
    assert "TypeError" not in speeds.read(H200).fault
    assert loader(plan(tmp_path, 40)) == "huggingface"
    for _ in range(speeds.KEPT + 2):
        assert speeds.add(H200, run("huggingface", 1.0, 1e12)) is None
    assert len(speeds.read(H200).runs) == speeds.KEPT
