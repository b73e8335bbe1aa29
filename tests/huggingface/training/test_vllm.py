"""Answers made by vLLM, through TRL, where vLLM runs in the training process. vLLM is a double: it needs a GPU."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk.events import read_events
from forge.model.facts import ModelFacts
from forge_huggingface.rules.training import cannot_train
from support import doubles
from support.measuring import CPU, make_job
from support.rows import ONLINE, prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Project

DOUBLE = Path(doubles.__file__).parent / "vllm"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """``PYTHONPATH`` with the double installed as a distribution."""
    folder = tmp_path / "site"
    shutil.copytree(DOUBLE, folder / "vllm")
    about = folder / "vllm-0.27.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.27.0\n", encoding="utf-8")
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def events(project: Project, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(project.newest().events) if event["kind"] == kind]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("method", "adapter", "more"),
    [
        slow("grpo", {}, {}),
        slow("grpo", {}, {"vllm_enable_sleep_mode": True, "vllm_importance_sampling_mode": "token_truncate"}),
        slow("grpo", {"type": "none", "r": None, "lora_alpha": None}, {"vllm_importance_sampling_correction": False}),
        slow("rloo", {}, {}),
        slow("sdpo", {}, {}),
    ],
    ids=["grpo", "grpo, asleep between", "grpo, every weight", "rloo", "sdpo"],
)
def test_the_answers_are_those_of_the_weights_as_they_are_now(
    project: Project, rows: Callable[[Sequence[Any]], None], path: str, method: str, adapter: Any, more: dict[str, Any]
) -> None:
    rows(prompts())
    train = {**ONLINE, **more, "method": method, "use_vllm": True, "max_steps": 3, "save_steps": 3}
    project.write(adapter=adapter, train={**train, "learning_rate": 0.05})
    project.forge("run", "job.toml", PYTHONPATH=path)
    steps = events(project, "step")
    assert len(steps) == 3
    assert len(events(project, "probe")) == 1
    if method == "grpo" and more.get("vllm_importance_sampling_correction") is not False:
        # The log-probabilities of the double against the trainer's, after each step of a high rate.
        assert max(step["sampling/sampling_logp_difference/max"] for step in steps) < 1e-3


def test_vllm_takes_no_8_bit_weights() -> None:
    machine = replace(CPU, versions={**CPU.versions, "vllm": "0.27.0"})
    facts = ModelFacts(id="m", source="folder", task="text")
    reasons = [
        cannot_train(machine, make_job({"model": tables}, method="grpo", use_vllm=True), facts)
        for tables in ({}, {"load_in_4bit": True}, {"load_in_8bit": True})
    ]
    assert reasons[:2] == [None, None]
    assert "vLLM does not take 8-bit weights" in str(reasons[2])


def test_without_vllm_the_plan_says_how_to_get_it(project: Project, rows: Callable[[Sequence[Any]], None]) -> None:
    rows(prompts())
    project.write(train={**ONLINE, "method": "grpo", "use_vllm": True})
    said = " ".join(project.forge("plan", "job.toml", code=2).split())
    assert "train.use_vllm: it needs a package: vllm is not installed" in said
    assert "pip install vllm" in said
