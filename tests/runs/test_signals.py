"""What a second Ctrl-C, a stop during an export, a foreign folder and odd texts come to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from psutil import Process

from forge.api import event_of
from forge.api.run import Run
from forge.cli.console import Console
from forge.disk.checkpoints import checkpoints
from forge.disk.events import read_events
from support.projects import Project, perform_in, step_now, wait_for

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@posix
def test_a_second_signal_stops_at_once_and_is_no_failure(project: Project) -> None:
    project.write(train={"max_steps": 4000, "save_steps": 2})
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 4)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "error" not in output
    assert "forge resume" in output
    assert list(read_events(folder.events))[-1]["kind"] == "stopped"
    assert "stopped" in project.forge("runs")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the processes are looked for in /proc")
def test_a_stop_that_all_processes_of_a_job_are_asked_for_saves_too(project: Project) -> None:
    """As Slurm asks at a time limit: also those that read rows ahead."""
    project.write(train={"max_steps": 20_000, "save_steps": 100_000, "dataloader_num_workers": 2})
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 4)
    everyone = Process(process.pid).children(recursive=True)
    assert len(everyone) >= 3
    for each in everyone:
        each.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "is whole" in output
    wait_for(lambda: not any(each.is_running() for each in everyone), 20)
    assert checkpoints(folder.checkpoints)


@pytest.mark.slow
@posix
def test_a_stop_while_exporting_keeps_the_weights_and_says_how_to_go_on(project: Project) -> None:
    project.write(train={"max_steps": 2}, export=[{"format": "merged"}])
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: any(event.get("stage") == "export" for event in read_events(folder.events)))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the trained weights are safe" in output
    assert folder.trained() is not None
    assert not (folder.path / "exports" / "1-merged").exists()
    project.forge("resume", str(folder.path))
    assert (folder.path / "exports" / "1-merged" / "export.json").exists()


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no such device")
@pytest.mark.slow
def test_a_training_goes_on_where_nothing_can_be_shown_and_its_log_says_so(project: Project) -> None:
    project.write(train={"max_steps": 2})
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-P", "-m", "forge", "run", "job.toml"]
        done = subprocess.run(command, cwd=project.folder, stdout=full, stderr=full, timeout=120, check=False)
    assert done.returncode == 0
    folder = project.newest()
    assert folder.trained() is not None
    told = "nothing can be written to standard output (No space left on device); the run goes on\n"
    assert folder.log.read_text(encoding="utf-8").count(told) == 1


@pytest.mark.slow
def test_a_module_beside_the_job_is_not_pythons(project: Project) -> None:
    (project.folder / "random.py").write_text("raise SystemExit(0)")
    project.write(train={"max_steps": 1})
    project.forge("run", "job.toml")
    assert project.newest().trained() is not None


def test_a_run_moved_to_another_folder_still_finds_its_best_checkpoint(project: Project) -> None:
    train = {
        "max_steps": 8,
        "learning_rate": 0.3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "lr_scheduler_type": "constant",
    }
    project.write(data={"eval_size": 4}, train=train)
    done = project.perform()
    whole = (done.folder.path / "adapter" / "adapter_model.safetensors").read_bytes()
    moved = project.folder / "moved"
    done.folder.path.rename(moved)
    (moved / "trained.json").unlink()
    shutil.rmtree(moved / "adapter")
    folder = type(done.folder)(moved)
    plan = replace(folder.plan(), resume=True)
    again = perform_in(Run(folder=moved, plan=plan), folder)
    assert again.code == 0, again.printed
    assert (moved / "adapter" / "adapter_model.safetensors").read_bytes() == whole


def test_a_stop_with_only_best_checkpoints_saves_one_all_the_same(project: Project) -> None:
    train = {
        "max_steps": 8,
        "learning_rate": 0.5,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "best",
        "save_steps": None,
        "metric_for_best_model": "loss",
        "lr_scheduler_type": "constant",
    }
    project.write(data={"eval_size": 4}, train=train)
    run, folder = project.prepare()
    run.stop.set()
    done = perform_in(run, folder)
    assert done.code == 130, done.printed
    assert [path.name for path in checkpoints(folder.checkpoints)] == ["checkpoint-1"]
    assert [event["step"] for event in done.of_kind("eval")] == [1], "what belongs to the step is in the checkpoint"
    assert "checkpoint-1 is whole" in done.of_kind("stopped")[-1]["message"]


def test_what_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "[train] loss [/INST] forge-train[unsloth] [v2]"
    with Console() as console:
        console.show(event_of({"kind": "warning", "message": text}))
        console.show(event_of({"kind": "note", "message": f"{tmp_path}/[v2]/rows.jsonl"}))
    printed = capsys.readouterr().out
    assert text in printed
    assert "/[v2]/rows.jsonl" in printed
