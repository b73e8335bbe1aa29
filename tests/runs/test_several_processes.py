"""Several processes train together, and as one would."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from forge.disk.checkpoints import newest_whole
from forge.disk.events import read_events
from forge.errors import RunError
from forge.parent.process import work
from support.projects import Project, json_of
from support.together import TWO, begin, end, numbers, run, trained

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
SHARED: dict[str, Any] = {"train": {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 2}}
HELD = {"per_device_eval_batch_size": 2}


@linux
def test_two_processes_train_as_one(project: Project) -> None:
    # Five held-out rows in batches of two: three batches, of which one process has one more than the other.
    held = {"eval_path": "held.jsonl"}
    write_held(project, 5)
    project.write(data=held, train=SHARED["train"] | HELD)
    one, two = run(project), run(project, *TWO)
    exact = ("loss", "grad_norm", "num_tokens", "learning_rate", "eval_loss", "eval_mean_token_accuracy")
    assert numbers(two, *exact) == [pytest.approx(each, abs=1e-6) for each in numbers(one, *exact)]
    assert json_of(one.path / "data.json")["digest"] == json_of(two.path / "data.json")["digest"]
    others = [event["kind"] for event in read_events(two.events_of(1))]
    assert "done" in others
    assert others.count("step") == len([1 for event in read_events(two.events) if event["kind"] == "step"])
    newest, rejected = newest_whole(two.checkpoints)
    assert newest is not None
    assert not rejected
    sealed = json_of(newest / "complete.json")["files"]
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(sealed)


def test_a_run_whose_workers_another_process_starts_is_in_use(project: Project) -> None:
    """Also while no worker is up yet, as where the first node waits for the others."""
    project.write(train={"gradient_accumulation_steps": 2}, launch={"processes": 2})
    _, folder = project.prepare()
    with folder.lead(), pytest.raises(RunError, match="is in use"):
        work(folder, folder.plan_paths()[-1], lambda _event: None)
    assert not folder.events.exists()
    assert not (folder.path / "meeting.json").exists()


def write_held(project: Project, count: int) -> None:
    from support.tiny import make_rows

    make_rows(project.folder / "held.jsonl", count)


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    "data",
    [{"packing": True}, {"streaming": True}, {"streaming": True, "packing": True}],
    ids=["packed", "streamed", "both"],
)
def test_packed_and_streamed_rows_are_shared_too(project: Project, data: dict[str, Any]) -> None:
    project.write(data=data, train={"gradient_accumulation_steps": 2})
    exact = ("loss", "grad_norm", "num_tokens")
    one, two = numbers(run(project), *exact), numbers(run(project, *TWO), *exact)
    assert two == [pytest.approx(each, abs=1e-6) for each in one]


@pytest.mark.slow
@linux
def test_full_fine_tuning_and_groups_by_length_are_the_same_too(project: Project) -> None:
    more = {"gradient_accumulation_steps": 2, "train_sampling_strategy": "group_by_length"}
    project.write(adapter={"type": "none", "r": None, "lora_alpha": None}, train=more)
    exact = ("loss", "grad_norm", "num_tokens")
    assert numbers(run(project, *TWO), *exact) == [
        pytest.approx(each, abs=1e-6) for each in numbers(run(project), *exact)
    ]


@pytest.mark.slow
@linux
def test_rows_that_cannot_be_shared_evenly_are_told(project: Project) -> None:
    project.write(data={"max_rows": 10}, train={"gradient_accumulation_steps": 2, "max_steps": 1})
    printed = project.forge("run", "job.toml", *TWO)
    assert "10 rows are no multiple of 2 batches of 2: at the end of an epoch 2 of its first rows are" in printed


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize("kill", [False, True])
def test_two_gpus_train_as_one(project: Project, kill: bool) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    project.write(train={"gradient_accumulation_steps": 2})
    if kill:
        process, folder, pids = begin(project, trained(5))
        os.kill(pids[1], signal.SIGKILL)
        assert "process 1 of 2 was killed (SIGKILL)" in end(process, folder, pids, 60)
        return
    one, two = run(project, "--set", "launch.processes=1"), run(project, *TWO)
    assert numbers(two, "loss") == [pytest.approx(each, rel=2e-3) for each in numbers(one, "loss")]
