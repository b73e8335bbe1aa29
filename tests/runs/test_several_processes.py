"""Several processes train together: as one would, and what befalls one of them is told and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forge.disk.checkpoints import newest_whole
from forge.disk.events import read_events
from forge.disk.folder import RunFolder
from support.projects import Project, json_of, processes_of, step_now, wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
TWO = ("--set", "launch.processes=2")
SHARED: dict[str, Any] = {"train": {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 2}}
HELD = {"per_device_eval_batch_size": 2}


def numbers(folder: RunFolder, *names: str) -> list[list[float]]:
    """Return what the trainer logged."""
    lines = [event for event in read_events(folder.events) if event["kind"] in {"step", "eval"}]
    return [[event[name] for name in names if name in event] for event in lines]


def run(project: Project, *arguments: str) -> RunFolder:
    project.forge("run", "job.toml", *arguments)
    return project.newest()


def is_free(folder: RunFolder, pids: dict[int, int]) -> bool:
    """Tell whether no worker is left, and nothing holds the folder."""
    return not folder.busy() and not any(_alive(pid) for pid in pids.values())


def _alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


@linux
def test_rows_that_cannot_be_shared_evenly_are_told(project: Project) -> None:
    project.write(data={"max_rows": 10}, train={"gradient_accumulation_steps": 2, "max_steps": 1})
    printed = project.forge("run", "job.toml", *TWO)
    assert "10 rows are no multiple of 2 batches of 2: at the end of an epoch 2 of its first rows are" in printed


def begin(
    project: Project, reached: Callable[[RunFolder], bool]
) -> tuple[subprocess.Popen[str], RunFolder, dict[int, int]]:
    """Begin a long training in two processes; return when it has come somewhere, with its workers."""
    process = project.start("run", "job.toml", *TWO, "--set", "train.max_steps=5000")
    wait_for(lambda: any(project.runs.glob("*/*/plan.json")))
    folder = project.newest()
    wait_for(lambda: len(processes_of(folder)) == 2 and reached(folder))
    return process, folder, processes_of(folder)


def in_stage(name: str) -> Callable[[RunFolder], bool]:
    return lambda folder: any(event.get("stage") == name for event in read_events(folder.events))


def trained(step: int) -> Callable[[RunFolder], bool]:
    return lambda folder: step_now(folder) >= step


def end(process: subprocess.Popen[str], folder: RunFolder, pids: dict[int, int], within: float) -> str:
    """Wait for a command that something befell, and see that nothing of it is left; return what it said."""
    began = time.monotonic()
    said = process.communicate(timeout=within)[0]
    wait_for(lambda: is_free(folder, pids), within - (time.monotonic() - began))
    return said


KILLED = [("start", lambda _folder: True), *((name, in_stage(name)) for name in ("collate", "load", "train"))]


@linux
def test_a_process_that_is_killed_is_named_and_the_run_goes_on_from_its_checkpoint(project: Project) -> None:
    project.write(train={"gradient_accumulation_steps": 2})
    process, folder, pids = begin(project, trained(5))
    os.kill(pids[1], signal.SIGKILL)
    said = end(process, folder, pids, 20)
    assert "process 1 of 2 was killed (SIGKILL)" in said
    assert "forge resume" in said
    assert process.returncode == 1


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("stage", "reached"), KILLED, ids=[name for name, _ in KILLED])
def test_a_kill_in_any_stage_is_told_as_what_it_is(project: Project, stage: str, reached: Any) -> None:
    project.write(train={"gradient_accumulation_steps": 2})
    process, folder, pids = begin(project, reached)
    os.kill(pids[1], signal.SIGKILL)
    assert "process 1 of 2 was killed (SIGKILL)" in end(process, folder, pids, 25), stage


@pytest.mark.slow
@linux
def test_a_process_that_hangs_is_waited_for_as_long_as_the_job_says(project: Project) -> None:
    project.write(train={"gradient_accumulation_steps": 2}, launch={"timeout": 8})
    process, folder, pids = begin(project, trained(5))
    os.kill(pids[1], signal.SIGSTOP)
    said = end(process, folder, pids, 40)
    assert "does not answer" in said
    assert "process 1 was still there" in said


@pytest.mark.slow
@linux
def test_nothing_outlives_a_launcher_or_a_parent_that_is_killed(project: Project) -> None:
    project.write(train={"gradient_accumulation_steps": 2})
    process, folder, pids = begin(project, trained(5))
    launcher = int((Path("/proc") / str(pids[1]) / "stat").read_text().rpartition(")")[2].split()[1])
    os.kill(launcher, signal.SIGKILL)
    assert "the launcher was killed (SIGKILL)" in end(process, folder, pids, 15)
    process, folder, pids = begin(project, trained(5))
    process.kill()
    end(process, folder, pids, 30)
    assert "stopped" in [event["kind"] for event in read_events(folder.events)]  # it saved, and said so


@pytest.mark.slow
@linux
def test_a_stop_is_agreed_on_and_goes_on_where_it_was(project: Project) -> None:
    project.write(train={"gradient_accumulation_steps": 2})
    process, folder, pids = begin(project, trained(5))
    process.send_signal(signal.SIGINT)
    said = end(process, folder, pids, 20)
    assert process.returncode == 130
    assert "is whole" in said
    process, folder, pids = begin(project, in_stage("load"))
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    end(process, folder, pids, 20)
    assert process.returncode == 130


@pytest.mark.slow
@linux
@pytest.mark.parametrize("stage", ["collate", "train"])
def test_an_error_of_one_process_is_told_with_its_number(project: Project, stage: str) -> None:
    """A module of the job's Python raises in process 1 alone, where the stage begins."""
    site = project.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, threading\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import importlib.abc, sys\n"
        f"    name = 'forge_huggingface.{'data.collate' if stage == 'collate' else 'training.callbacks'}'\n"
        "    class Break(importlib.abc.MetaPathFinder):\n"
        "        def find_spec(self, full, path, target=None):\n"
        "            if full == name:\n"
        "                raise RuntimeError('process 1 has had enough')\n"
        "    sys.meta_path.insert(0, Break())\n"
    )
    project.write(train={"gradient_accumulation_steps": 2})
    said = project.forge("run", "job.toml", *TWO, code=1, PYTHONPATH=f"{site}:{os.environ.get('PYTHONPATH', '')}")
    assert "process 1 has had enough" in said
    assert "(in process 1 of 2)" in said
    assert "Connection" not in said


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
