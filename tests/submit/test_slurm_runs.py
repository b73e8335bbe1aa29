"""Jobs in a real Slurm: trained, out of time and queued again, cancelled, failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from forge.api import Bundle, Job
from forge.disk.folder import RunFolder
from forge_submit.slurm import Slurm, SlurmOptions
from support.projects import make_rows, processes_of, step_now, wait_for
from support.together import SHARED, numbers, run

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project

pytestmark = pytest.mark.slow

NODES = ("--set", "launch.nodes=2", "--set", "launch.processes=1")

STUB = """#!/bin/bash
run=${0%/*}/runs/job/1
called="$run/called.$SLURM_NODEID"
trap 'echo "asked to stop" >>"$called"; exit 130' TERM
printf '%s\\n' "$*" "$MASTER_ADDR:$MASTER_PORT" >"$called"
until [ "$SLURM_NODEID" = 0 ] && [ -e "$run/fail" ]; do sleep 0.2; done
exit 3
"""
"""It goes on until it is asked to stop, the first one until it is to fail."""


def submit(project: Project, *arguments: str) -> Path:
    """Submit the project's job and return its run folder."""
    project.forge("submit", "job.toml", "--to", "slurm", *arguments)
    return next(project.runs.glob("*/*/ticket.json")).parent


def again_until_it_ends(project: Project, folder: Path, seconds: float) -> None:
    """Wait for a job's end; Slurm lets one that was queued again wait for two minutes, at each of its time limits."""
    number = project.forge("runs", "job").split("slurm ")[1].split(":")[0]
    start = ["scontrol", "update", f"JobId={number}", "StartTime=now"]

    def ended() -> bool:
        subprocess.run(start, capture_output=True)
        return (folder / "submit" / "ended").exists()

    wait_for(ended, seconds, 3)


def test_a_job_is_trained_and_its_folder_is_here(cluster: dict[str, str], project: Project) -> None:
    submit(project, "-o", "time=20")
    said = project.forge("logs", "job", "--follow")
    assert "start 1: forge run" in said
    assert "step 4/4" in said
    assert "trained  slurm" in project.forge("runs")
    assert "trained" in project.forge("fetch", "job")
    assert (project.newest().path / "submit" / "ended").read_text() == "0\n"


def test_at_its_time_limit_a_job_saves_is_queued_again_and_ends(cluster: dict[str, str], project: Project) -> None:
    long = ("train.max_steps=12000", "train.save_steps=1000000", "train.logging_steps=1000")
    changes = [each for change in long for each in ("--set", change)]
    folder = submit(project, "-o", "time=2", "-o", "seconds_before_limit=60", *changes)
    log = folder / "submit" / "slurm.log"
    wait_for(lambda: log.exists() and "goes back into the queue" in log.read_text(), 180, 0.5)
    assert not (folder / "trained.json").exists()
    assert "waiting  slurm" in project.forge("runs")
    again_until_it_ends(project, folder, 400)
    said = project.forge("logs", "job", "--follow")
    assert "start 2: forge resume" in said
    assert re.search(r"train   12000 steps from step [1-9]", said)
    assert "step 12000/12000" in said
    assert "trained  slurm" in project.forge("runs")


def test_a_job_that_is_cancelled_saves_a_checkpoint_and_is_not_queued_again(
    cluster: dict[str, str], project: Project
) -> None:
    endless = ("--set", "train.max_steps=100000", "--set", "train.save_steps=1000000")
    folder = submit(project, "-o", "time=20", *endless)
    events = folder / "events.jsonl"
    wait_for(lambda: events.exists() and '"progress"' in events.read_text(), 120, 0.2)
    project.forge("cancel", "job")
    wait_for(lambda: "stopped" in project.forge("runs"), 60, 1)
    assert list(folder.glob("checkpoints/*/complete.json"))
    assert "CANCELLED" in project.forge("runs")
    assert "has ended already" in project.forge("cancel", "job", code=2)


def test_a_job_that_fails_leaves_its_log(cluster: dict[str, str], project: Project) -> None:
    (project.folder / "rows.jsonl").write_text('{"messages": 3}\n')
    submit(project, "-o", "time=20")
    said = project.forge("logs", "job", "--follow")
    assert "error" in said
    runs = project.forge("runs")
    assert "failed" in runs
    assert "exit code 2" in runs


def test_a_job_whose_preparation_fails_leaves_a_word_of_its_end(cluster: dict[str, str], project: Project) -> None:
    folder = submit(project, "-o", "time=20", "-o", 'setup=["false"]')
    project.forge("logs", "job", "--follow")
    assert (folder / "submit" / "ended").read_text() == "1\n"
    assert "failed" in project.forge("runs")


@pytest.mark.parametrize("nodes", [2, 3])
def test_nodes_train_as_one_process(cluster: dict[str, str], project: Project, nodes: int) -> None:
    make_rows(project.folder / "rows.jsonl", 24)
    project.write(train={"gradient_accumulation_steps": 6})
    folder = submit(project, "-o", "time=20", *NODES, "--set", f"launch.nodes={nodes}")
    said = project.forge("logs", "job", "--follow")
    assert "step 4/4" in said
    for node in range(1, nodes):
        assert f"node {node} of {nodes}: 1 process, meeting at 127.0.0.1" in said
    assert (folder / "submit" / "ended").read_text() == "0\n"
    exact = ("loss", "grad_norm", "num_tokens")
    two = numbers(RunFolder(folder), *exact)
    assert two == [pytest.approx(each, abs=1e-6) for each in numbers(run(project), *exact)]


def test_two_nodes_save_at_their_time_limit_are_queued_again_and_end(cluster: dict[str, str], project: Project) -> None:
    long = ("train.max_steps=3000", "train.save_steps=1000000", "train.logging_steps=100")
    project.write(train=SHARED)
    changes = [each for change in long for each in ("--set", change)]
    folder = submit(project, "-o", "time=2", "-o", "seconds_before_limit=60", *NODES, *changes)
    again_until_it_ends(project, folder, 560)
    said = project.forge("logs", "job", "--follow")
    assert "goes back into the queue" in said
    assert "start 2: forge resume" in said
    assert re.search(r"train   3000 steps from step [1-9]", said)
    assert "step 3000/3000" in said
    assert "trained  slurm" in project.forge("runs")


def test_two_nodes_that_are_cancelled_save_a_checkpoint(cluster: dict[str, str], project: Project) -> None:
    project.write(train=SHARED)
    endless = ("--set", "train.max_steps=100000", "--set", "train.save_steps=1000000")
    folder = submit(project, "-o", "time=20", *NODES, *endless)
    wait_for(lambda: step_now(RunFolder(folder)) > 2, 120, 0.2)
    project.forge("cancel", "job")
    wait_for(lambda: "stopped" in project.forge("runs"), 60, 1)
    assert list(folder.glob("checkpoints/*/complete.json"))
    assert "CANCELLED" in project.forge("runs")
    assert not processes_of(RunFolder(folder))


def test_two_nodes_of_which_a_process_dies_end_and_leave_their_log(cluster: dict[str, str], project: Project) -> None:
    project.write(train=SHARED)
    folder = submit(project, "-o", "time=20", *NODES, "--set", "train.max_steps=100000")
    wait_for(lambda: step_now(RunFolder(folder)) > 2, 120, 0.2)
    os.kill(processes_of(RunFolder(folder))[1], signal.SIGKILL)
    said = project.forge("logs", "job", "--follow")
    assert "process 1 of 2 was killed (SIGKILL)" in said
    runs = project.forge("runs")
    assert "FAILED exit code 1 " in runs
    assert "process 1 of 2 was killed (SIGKILL)" in runs
    assert not processes_of(RunFolder(folder))


def stand_in(folder: Path) -> tuple[Path, str]:
    """Submit a job of three nodes, on which something stands in for forge that writes down how it was called."""
    stub = folder / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    run = folder / "runs" / "job" / "1"
    (run / "submit").mkdir(parents=True)
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}, "launch": {"nodes": 3}})
    bundle = Bundle(run=run, name="job/1", job=job)
    sent = Slurm(SlurmOptions(time="20", python=str(stub)))
    sent.write(bundle)
    number, _ = sent.submit(bundle)
    wait_for(lambda: len(list(run.glob("called.*"))) == 3, 60, 0.2)
    return run, number


def test_each_node_gets_its_own_task_and_the_wish_to_stop(cluster: dict[str, str], tmp_path: Path) -> None:
    run, number = stand_in(tmp_path)
    subprocess.run(["scancel", "--signal=TERM", number], check=True)
    wait_for(lambda: (run / "submit" / "ended").exists(), 60, 0.2)
    assert (run / "submit" / "ended").read_text() == "130\n"
    first, second, third = ((run / f"called.{node}").read_text().splitlines() for node in "012")
    address = f"127.0.0.1:{20000 + int(number) % 20000}"
    assert first == [f"-P -m forge run {run}/submit/job.toml --folder {run}", address, "asked to stop"]
    assert second == [f"-P -m forge worker-node {run} --node 1", address, "asked to stop"]
    assert third == [f"-P -m forge worker-node {run} --node 2", address, "asked to stop"]


def test_a_job_ends_with_the_code_of_its_first_node(cluster: dict[str, str], tmp_path: Path) -> None:
    """Slurm asks the second node to stop where the first one has failed, and srun ends with the highest code."""
    run, _ = stand_in(tmp_path)
    (run / "fail").touch()
    wait_for(lambda: (run / "submit" / "ended").exists(), 60, 0.2)
    assert (run / "submit" / "ended").read_text() == "3\n"
    assert (run / "called.1").read_text().splitlines()[-1] == "asked to stop"
