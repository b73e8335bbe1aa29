"""Nodes that train together: two processes of this machine stand for two machines that share a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge.api import Decision
from forge.disk.events import read_events
from forge.disk.folder import RunFolder
from forge.disk.meeting import Meeting
from forge.errors import RunError
from forge.machine.presets import PRESETS
from forge.parent.node import check_cards, serve
from support.projects import cut_after, json_of, processes_of, wait_for
from support.together import SHARED, in_stage, is_free, numbers, run, told, trained

if TYPE_CHECKING:
    from support.projects import Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

NODES = ("--set", "launch.nodes=2", "--set", "launch.processes=1")
HERE = {"MASTER_ADDR": "127.0.0.1"}

Nodes = tuple["subprocess.Popen[str]", "subprocess.Popen[str]", RunFolder]


def begin(project: Project, *arguments: str) -> Nodes:
    """Begin a training on two nodes."""
    first = project.begin(*NODES, *arguments, **HERE)
    folder = project.newest()
    return first, project.start("worker-node", str(folder.path)), folder


def end(nodes: Nodes, within: float) -> tuple[str, str]:
    """Wait for both nodes, and return what they said."""
    began = time.monotonic()
    said = []
    for process in nodes[:2]:
        said.append(process.communicate(timeout=within)[0])
        told(time.monotonic() - began, said[-1])
    wait_for(lambda: is_free(nodes[2], processes_of(nodes[2])), 10)
    return said[0], said[1]


@pytest.mark.slow
def test_two_nodes_train_as_one_process(project: Project) -> None:
    """The further node is at work in another folder, and knows the run's by another path."""
    project.write(train=SHARED)
    link = project.folder.parent / "link"
    link.symlink_to(project.folder, target_is_directory=True)
    process = project.begin(*NODES, **HERE)
    folder = project.newest()
    known_as = str(link / folder.path.relative_to(project.folder))
    nodes = process, project.start("worker-node", known_as, cwd=project.folder.parent), folder
    first, second = end(nodes, 60)
    assert [each.returncode for each in nodes[:2]] == [0, 0], first + second
    assert f"forge worker-node {folder.path}" in first
    assert "node 1 of 2: 1 process, meeting at 127.0.0.1" in second
    exact = ("loss", "grad_norm", "num_tokens")
    assert numbers(folder, *exact) == [pytest.approx(each, abs=1e-6) for each in numbers(run(project), *exact)]
    assert "done" in [event["kind"] for event in read_events(folder.events_of(1))]
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(
        json_of(folder.checkpoints / "checkpoint-4" / "complete.json")["files"]
    )


def test_a_node_that_nobody_waits_for_is_told(project: Project) -> None:
    said = project.forge("worker-node", "runs/job/none", "--wait", "0.3", code=2)
    assert "no training in runs/job/none waits for a node" in said
    assert "give this one the same disk" in said


def test_a_folder_that_is_elsewhere_on_the_first_node_is_told(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "job" / "1"
    run.mkdir(parents=True)
    Meeting.call(run, run / "plan.json", 2, HERE)
    moved = tmp_path / "mounted"
    (tmp_path / "runs").rename(moved)
    with pytest.raises(RunError, match=r"is not this folder here.*same path"):
        serve(RunFolder(moved / "job" / "1"), 1, lambda _event: None, wait=0)
    with pytest.raises(RunError, match="has no node 2"):
        serve(RunFolder(moved / "job" / "1"), 2, lambda _event: None, wait=0)


@pytest.mark.slow
def test_a_node_that_does_not_come_is_waited_for_as_long_as_the_job_says(project: Project) -> None:
    project.write(train=SHARED, launch={"timeout": 6})
    began = time.monotonic()
    said = project.forge("run", "job.toml", *NODES, code=1, **HERE)
    told(time.monotonic() - began, said)
    assert "1 of 2 nodes came to 127.0.0.1:" in said
    assert "within 6 s" in said
    assert time.monotonic() - began < 40


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_a_process_that_is_killed_ends_all_nodes(project: Project, node: int) -> None:
    project.write(train=SHARED)
    nodes = begin(project, "--set", "train.max_steps=5000")
    wait_for(lambda: trained(5)(nodes[2]))
    os.kill(processes_of(nodes[2])[node], signal.SIGKILL)
    first, second = end(nodes, 40)
    assert f"process {node} of 2 was killed (SIGKILL)" in first
    assert "forge resume" in first
    assert "the processes of this node failed" in second
    assert [each.returncode for each in nodes[:2]] == [1, 1]


@pytest.mark.slow
def test_a_node_whose_processes_have_failed_says_so_though_it_is_asked_to_stop_later(project: Project) -> None:
    """Slurm asks all nodes to stop once one of them has failed."""
    project.write(train=SHARED)
    nodes = begin(project, "--set", "train.max_steps=5000")
    wait_for(lambda: trained(5)(nodes[2]))
    os.kill(processes_of(nodes[2])[1], signal.SIGKILL)
    nodes[0].wait(40)
    time.sleep(0.5)  # the second one waits for another attempt
    nodes[1].terminate()
    _, second = end(nodes, 40)
    assert "the processes of this node failed" in second
    assert [each.returncode for each in nodes[:2]] == [1, 1]


@pytest.mark.slow
def test_a_node_that_comes_twice_ends_with_the_training(project: Project) -> None:
    project.write(train=SHARED)
    nodes = begin(project)
    twin = project.start("worker-node", str(nodes[2].path))
    said = [process.communicate(timeout=90)[0] for process in (nodes[0], nodes[1], twin)]
    assert nodes[0].returncode == 0, said[0]
    assert sorted([nodes[1].returncode, twin.returncode]) == [0, 1], said
    assert is_free(nodes[2], processes_of(nodes[2]))


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_a_node_that_is_asked_to_stop_stops_all(project: Project, node: int) -> None:
    project.write(train=SHARED)
    nodes = begin(project, "--set", "train.max_steps=5000")
    wait_for(lambda: trained(5)(nodes[2]))
    nodes[node].send_signal(signal.SIGINT)
    first, second = end(nodes, 40)
    assert "is whole" in first
    assert "stopped with the training" in second
    assert [each.returncode for each in nodes[:2]] == [130, 130]


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_a_node_whose_forge_is_killed_leaves_nothing_behind(project: Project, node: int) -> None:
    project.write(train=SHARED)
    nodes = begin(project, "--set", "train.max_steps=5000")
    wait_for(lambda: trained(5)(nodes[2]))
    pids = processes_of(nodes[2])
    nodes[node].kill()
    end(nodes, 40)
    wait_for(lambda: is_free(nodes[2], pids), 20)
    assert "stopped" in [event["kind"] for event in read_events(nodes[2].events)]  # it saved, and said so


@pytest.mark.slow
def test_a_node_that_waits_for_the_first_one_can_be_stopped(project: Project) -> None:
    waiting = project.start("worker-node", "runs/job/none")
    time.sleep(3)
    waiting.send_signal(signal.SIGTERM)
    said = waiting.communicate(timeout=10)[0]
    assert "stopped before the training began" in said
    assert waiting.returncode == 130


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_a_node_that_waits_where_they_meet_can_be_stopped(project: Project, node: int) -> None:
    """Either the second node never comes, or the first one, whose word was left there, is gone."""
    project.write(train=SHARED)
    first = project.begin(*NODES, **HERE)
    folder = project.newest()
    wait_for(lambda: (folder.path / "meeting.json").exists(), 20)
    time.sleep(3)
    waiting = first
    if node:
        first.kill()
        first.communicate()
        waiting = project.start("worker-node", str(folder.path))
        time.sleep(6)
    waiting.send_signal(signal.SIGINT)
    said = waiting.communicate(timeout=8)[0]
    assert "stopped" in said
    assert waiting.returncode == 130


@pytest.mark.slow
def test_a_meeting_that_a_killed_first_node_left_behind_is_not_waited_at(project: Project) -> None:
    project.write(train=SHARED)
    nodes = begin(project)
    end(nodes, 60)
    folder = nodes[2]
    losses = numbers(folder, "loss")
    cut_after(folder, 2)
    (folder.path / "ended.node0.json").unlink()
    second = project.start("worker-node", str(folder.path))
    port = str(json_of(folder.path / "meeting.json")["port"])
    time.sleep(3)  # it looks for the other one by now
    first = project.start("resume", str(folder.path), **HERE, MASTER_PORT=port)
    said = end((first, second, folder), 60)
    assert [first.returncode, second.returncode] == [0, 0], said
    assert numbers(folder, "loss")[-2:] == losses[-2:]


@pytest.mark.slow
def test_a_node_that_is_stopped_before_the_first_step_is_named(project: Project) -> None:
    project.write(train=SHARED)
    nodes = begin(project, "--set", "train.max_steps=5000")
    wait_for(lambda: in_stage("load")(nodes[2]))
    nodes[1].send_signal(signal.SIGINT)
    first, second = end(nodes, 40)
    assert "process 1 of 2 was asked to stop" in first
    assert "stopped with the training" in second
    assert [each.returncode for each in nodes[:2]] == [130, 130]


@pytest.mark.slow
def test_a_node_that_came_is_stopped_with_the_first_one_that_waits_for_another(project: Project) -> None:
    project.write(train={"gradient_accumulation_steps": 3})
    first, second, folder = begin(project, "--set", "launch.nodes=3")
    wait_for(lambda: (folder.path / "log.node1.txt").exists(), 30)
    time.sleep(8)  # its launcher is where they meet by then
    first.send_signal(signal.SIGINT)
    assert "stopped" in first.communicate(timeout=30)[0]
    said = second.communicate(timeout=60)[0]
    assert "stopped with the training" in said
    assert (first.returncode, second.returncode) == (130, 130)


def test_a_node_that_shows_fewer_gpus_than_the_first_one_is_told(project: Project) -> None:
    run, _ = project.prepare()
    two = Decision("launch.processes", 2, "there are two")
    plan = replace(run.plan, decisions=(*run.plan.decisions, two), machine=PRESETS["linux-cuda"])
    with pytest.raises(RunError, match="node 2 shows 1 GPU by CUDA_VISIBLE_DEVICES, and 2 are used: every node"):
        check_cards({"CUDA_VISIBLE_DEVICES": "3"}, plan, 2)
    for shown in ({"CUDA_VISIBLE_DEVICES": "3,0"}, {"HIP_VISIBLE_DEVICES": "0"}, {}):
        check_cards(shown, plan, 2)
