"""A run of several processes goes on as if nothing had happened, in as many processes or in another number."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from runs.test_methods_together import FULL, HERE, hold_alike, together
from runs.test_sharded import SHARDED, weights

from forge.disk.events import read_events
from support.projects import Project, cut_after
from support.resuming import untimed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes are looked for in /proc")

TWO = ("--set", "launch.processes=2")
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("before", "after", "adapter"),
    [
        pytest.param(TWO, (), {"lora_dropout": 0.1}, id="two-two"),
        pytest.param(TWO, ("--processes", "1"), {}, id="two-one", marks=slow),
        pytest.param((), ("--processes", "2"), {}, id="one-two", marks=slow),
        pytest.param(SHARDED, (), {}, id="sharded", marks=slow),
        pytest.param(SHARDED, (), FULL, id="sharded-full", marks=slow),
    ],
)
def test_a_run_goes_on_from_a_checkpoint_between_two_logs(
    project: Project, before: tuple[str, ...], after: tuple[str, ...], adapter: dict[str, Any]
) -> None:
    # Every third step is logged, and every second one saved: what was measured since the last log is in the checkpoint.
    train = {"gradient_accumulation_steps": 2, "logging_steps": 3, "max_steps": 6, "save_steps": 2}
    project.write(train=train, adapter=adapter)
    whole = together(project, *before, FORGE_TESTS_SHARD="1")
    folder = project.newest()
    first = weights(folder)
    trained = folder.trained()
    assert trained is not None
    cut_after(folder, 2, trained.weights)
    folder.events.unlink()
    path = f"{HERE}:{os.environ.get('PYTHONPATH', '')}"
    project.forge("resume", str(folder.path), *after, PYTHONPATH=path, FORGE_TESTS_SHARD="1")
    lines = [untimed(event) for event in read_events(folder.events) if event["kind"] == "step"]
    again = [{name: value for name, value in line.items() if isinstance(value, int | float)} for line in lines]
    hold_alike(whole, again)
    second = weights(folder)
    apart = max(float((first[key] - second[key]).abs().max()) for key in first)
    assert apart < 1e-6 if after else apart == 0


@slow
def test_a_model_with_dropout_of_its_own_goes_on_in_as_many_processes_only(project: Project) -> None:
    path = project.folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attention_dropout": 0.1}))
    project.write(train={"gradient_accumulation_steps": 2, "max_steps": 3, "save_steps": 1})
    together(project, *TWO)
    folder = project.newest()
    trained = folder.trained()
    assert trained is not None
    cut_after(folder, 2, trained.weights)
    said = project.forge("resume", str(folder.path), "--processes", "1", code=2)
    assert "the run cannot go on in 1 process: it began in 2, and " in said
    assert "attention_dropout = 0.1 draws random numbers" in said
    project.forge("resume", str(folder.path))
    assert folder.trained() is not None
