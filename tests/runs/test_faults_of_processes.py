"""What befalls one of several processes that train together is told, leaves nothing behind, and can be gone on from.

``pytest -n0 -rP -m "slow or not slow" tests/runs/test_faults_of_processes.py`` prints when each command ended and what
it said.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk.checkpoints import newest_whole
from forge.disk.events import read_events
from support.together import SHARED, TWO, Befallen, begin, end, in_stage, numbers, run, trained, weights

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder
    from support.projects import Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

SHORT = {**SHARED, "max_steps": 6, "save_steps": 2}

STEP = "transformers.trainer:Trainer.training_step"
SAVING = "transformers.trainer:Trainer._save_rng_state"
RAISE = "raise RuntimeError('process 1 has had enough')"
KILL = "os.kill(os.getpid(), 9)"
ALLOCATE = "import torch; torch.empty(2**55)"

KILLED = [("start", lambda _folder: True), *((name, in_stage(name)) for name in ("collate", "load", "train"))]


def test_a_process_that_is_killed_is_named_and_the_run_goes_on_from_its_checkpoint(project: Project) -> None:
    project.write(train=SHARED)
    process, folder, pids = begin(project, trained(5))
    os.kill(pids[1], signal.SIGKILL)
    said = end(process, folder, pids, 20)
    assert "process 1 of 2 was killed (SIGKILL)" in said
    assert "forge resume" in said
    assert process.returncode == 1
    assert "process 1 of 2 was killed" in project.forge("runs")


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "reached"), KILLED, ids=[name for name, _ in KILLED])
def test_a_kill_in_any_stage_is_told_as_what_it_is(project: Project, stage: str, reached: Any) -> None:
    project.write(train=SHARED)
    process, folder, pids = begin(project, reached)
    os.kill(pids[1], signal.SIGKILL)
    assert "process 1 of 2 was killed (SIGKILL)" in end(process, folder, pids, 25), stage


@pytest.mark.slow
def test_a_process_that_hangs_is_waited_for_as_long_as_the_job_says(project: Project) -> None:
    project.write(train=SHARED, launch={"timeout": 8})
    process, folder, pids = begin(project, trained(5))
    os.kill(pids[1], signal.SIGSTOP)
    said = end(process, folder, pids, 40)
    assert "does not answer" in said
    assert "process 1 was still there" in said


@pytest.mark.slow
@pytest.mark.parametrize("call", [2, 5])
def test_one_that_hangs_where_the_first_has_worked_alone_is_not_waited_for_longer(project: Project, call: int) -> None:
    """The first process is waited for with patience, and does not wait so itself."""
    project.write(train=SHORT, launch={"timeout": 8})
    stop = "import signal; os.kill(os.getpid(), signal.SIGSTOP)"
    said, seconds = Befallen(project, "forge.worker.ranks:Together.first", stop, call).run()
    assert "does not answer" in said
    assert "process 1 was still there" in said
    assert seconds < 40


@pytest.mark.slow
def test_nothing_outlives_a_launcher_or_a_parent_that_is_killed(project: Project) -> None:
    project.write(train=SHARED)
    process, folder, pids = begin(project, trained(5))
    launcher = int((Path("/proc") / str(pids[1]) / "stat").read_text().rpartition(")")[2].split()[1])
    os.kill(launcher, signal.SIGKILL)
    assert "the launcher was killed (SIGKILL)" in end(process, folder, pids, 15)
    process, folder, pids = begin(project, trained(5))
    process.kill()
    end(process, folder, pids, 30)
    assert "stopped" in [event["kind"] for event in read_events(folder.events)]  # it saved, and said so


@pytest.mark.slow
def test_a_stop_is_agreed_on_and_goes_on_where_it_was(project: Project) -> None:
    project.write(train=SHARED)
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
def test_a_second_wish_ends_also_what_hangs(project: Project) -> None:
    project.write(train=SHARED)
    process, folder, pids = begin(project, trained(5))
    os.kill(pids[1], signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    said = end(process, folder, pids, 20)
    assert process.returncode == 130
    assert "stopped at once: the last whole checkpoint is" in said


def goes_on(project: Project, folder: RunFolder) -> None:
    """Hold that a run that something befell ends like one that nothing did."""
    project.forge("resume", str(folder.path))
    whole = run(project, *TWO)
    assert numbers(folder, "loss")[-1] == numbers(whole, "loss")[-1]
    assert weights(folder) == weights(whole)


def stage(name: str) -> str:
    return f"forge.worker.stages:Stages.{name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "call"),
    [(stage("collate"), 1), (stage("load"), 1), (stage("adapt"), 1), (STEP, 7), (SAVING, 2)],
    ids=["collate", "load", "adapt", "step", "save"],
)
def test_an_error_of_one_process_is_told_with_its_number(project: Project, where: str, call: int) -> None:
    project.write(train=SHORT)
    said, seconds = Befallen(project, where, RAISE, call).run()
    assert "process 1 has had enough" in said
    assert "(in process 1 of 2)" in said
    assert "Connection" not in said
    assert seconds < 15
    if where == STEP:
        goes_on(project, project.newest())


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_saved_leaves_the_one_before(project: Project) -> None:
    project.write(train=SHORT)
    said, seconds = Befallen(project, SAVING, KILL, 2).run()
    assert "process 1 of 2 was killed (SIGKILL)" in said
    assert seconds < 15
    newest, _ = newest_whole(project.newest().checkpoints)
    assert newest is not None
    assert newest.name == "checkpoint-2"
    goes_on(project, project.newest())


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 7], ids=["probe", "step"])
def test_one_process_that_runs_out_of_memory_is_told(project: Project, call: int) -> None:
    project.write(train=SHORT)
    said, seconds = Befallen(project, STEP, ALLOCATE, call).run()
    assert "out of memory" in said
    assert "(in process 1 of 2)" in said
    assert seconds < 15


@pytest.mark.slow
def test_rows_that_differ_are_refused_before_the_model_loads(project: Project) -> None:
    """Process 1 finds another file: it comes eight seconds later, when a row is gone."""
    project.write(train=SHORT, data={"streaming": True})
    rows, later = project.folder / "rows.jsonl", project.folder / "later.jsonl"
    later.write_text(rows.read_text().split("\n", 1)[1])
    change = f"time.sleep(8); os.replace({str(later)!r}, {str(rows)!r})"
    said, seconds = Befallen(project, stage("collate"), change).run(code=2)
    assert "the processes do not have the same rows" in said
    assert "and process 1 has some of the digest" in said
    assert seconds < 23
    assert not in_stage("load")(project.newest())


@pytest.mark.slow
def test_a_full_disk_is_told_by_whichever_process_meets_it(project: Project) -> None:
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("a small disk must be mounted")
    project.runs.mkdir()
    project.write(train=SHORT)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(project.runs)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        fill = 'exec(\'try: open(sys.argv[1] + "/filler", "wb", 0).write(bytes(2**20))\\nexcept OSError: pass\')'
        said, seconds = Befallen(project, STEP, fill, 5, rank=0).run()
        assert "the disk is full" in said
        assert "Connection" not in said
        assert seconds < 15
        folder = project.newest()
        (folder.path / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=100m", str(project.runs)], check=True)
        goes_on(project, folder)
    finally:
        subprocess.run(["umount", str(project.runs)], check=True)
