"""Killed, stopped and damaged runs: what is lost is at most the steps since the last whole checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess

import pytest

from forge.disk.checkpoints import MARK, checkpoints
from forge.disk.events import read_events
from forge.disk.folder import RunFolder
from support.projects import Project, cut_after, json_of, step_now, wait_for, worker_pid
from support.resuming import resumed

LONG = {"max_steps": 24, "save_steps": 4}
DROPOUT = {"lora_dropout": 0.1}


def weights(folder: RunFolder) -> bytes:
    return (folder.path / "adapter" / "adapter_model.safetensors").read_bytes()


def kill_at(project: Project, process: subprocess.Popen[str], step: int) -> None:
    """Kill the worker of the newest run once it has logged a step."""
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= step)
    os.kill(worker_pid(folder), signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_run_killed_at_any_step_ends_in_the_same_bits(project: Project) -> None:
    project.write(train=LONG, adapter=DROPOUT)
    project.forge("run", "job.toml")
    whole = weights(project.newest())

    step = random.Random(os.getpid()).randrange(5, 20)
    kill_at(project, project.begin(), step)
    folder = project.newest()
    assert folder.trained() is None, f"killed too late, after step {step}"
    output = project.forge("resume", str(folder.path))
    assert "going on from checkpoint-" in output
    assert weights(folder) == whole, f"killed after step {step}"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_run_killed_thrice_and_in_a_checkpoint_ends_in_the_same_bits(project: Project) -> None:
    project.write(train={"max_steps": 60, "save_steps": 3}, adapter=DROPOUT)
    project.forge("run", "job.toml")
    whole = weights(project.newest())

    steps = sorted(random.Random(os.getpid()).sample(range(2, 30), 3))
    process = project.begin()
    for step in steps:
        kill_at(project, process, step)
        process = project.start("resume", str(project.newest().path))
    folder = project.newest()
    wait_for(lambda: step_now(folder) > steps[-1])  # what the kills left half written is gone by now

    def half() -> list[str]:
        return [path.name for path in checkpoints(folder.checkpoints) if not (path / MARK).exists()]

    wait_for(half, pause=0)
    os.kill(worker_pid(folder), signal.SIGKILL)
    process.communicate(timeout=60)
    killed_in = half()
    assert len(killed_in) == 1, "the kill came too late"
    output = project.forge("resume", str(folder.path))
    assert f"{killed_in[0]} cannot be used: it was not finished" in output
    assert weights(folder) == whole, f"killed after {steps} and in {killed_in}"


def test_a_half_written_checkpoint_is_passed_over_and_said(project: Project) -> None:
    project.write(train={"max_steps": 6, "save_steps": 2}, adapter=DROPOUT)
    done = project.perform()
    whole = weights(done.folder)
    cut_after(done.folder, 6)
    (done.folder.checkpoints / "checkpoint-6" / MARK).unlink()
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    assert any("checkpoint-6 cannot be used: it was not finished" in w["message"] for w in again.of_kind("warning"))
    assert any("going on from checkpoint-4" in note["message"] for note in again.of_kind("note"))
    assert weights(done.folder) == whole


def test_a_damaged_checkpoint_is_passed_over_and_said(project: Project) -> None:
    project.write(train={"max_steps": 6, "save_steps": 2})
    done = project.perform()
    whole = weights(done.folder)
    cut_after(done.folder, 6)
    file = done.folder.checkpoints / "checkpoint-6" / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    again = resumed(done.folder)
    assert any("optimizer.pt is damaged" in warning["message"] for warning in again.of_kind("warning"))
    assert weights(done.folder) == whole


def test_a_run_that_lacked_only_its_last_files_trains_no_step_more(project: Project) -> None:
    project.write(train={"max_steps": 4, "save_steps": 2, "lr_scheduler_type": "constant"}, adapter=DROPOUT)
    done = project.perform()
    whole = weights(done.folder)
    cut_after(done.folder, 4)
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    assert len(again.losses) == 4, "no step after the fourth"
    assert weights(done.folder) == whole
    assert [path.name for path in checkpoints(done.folder.checkpoints)][-1] == "checkpoint-4"


def test_an_early_stop_is_an_end_on_resume_too_and_the_best_weights_are_kept(project: Project) -> None:
    train = {
        "max_steps": 40,
        "learning_rate": 0.3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "lr_scheduler_type": "constant",
    }
    project.write(data={"eval_size": 4}, train=train)
    done = project.perform()
    whole, steps = weights(done.folder), len(done.losses)
    assert steps < 40
    cut_after(done.folder, steps)
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    assert len(again.losses) == steps
    assert weights(done.folder) == whole


def test_without_a_whole_checkpoint_a_run_begins_again(project: Project) -> None:
    project.write(train={"max_steps": 4, "save_steps": 4})
    done = project.perform()
    whole = weights(done.folder)
    cut_after(done.folder, 0)
    again = resumed(done.folder)
    assert any("starting at step 0" in note["message"] for note in again.of_kind("note"))
    assert weights(done.folder) == whole


@pytest.mark.parametrize("packing", [False, True])
def test_a_streamed_run_resumes_to_the_same_bits(project: Project, packing: bool) -> None:
    data = {"streaming": True, "packing": packing}
    project.write(data=data, train={"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 1})
    done = project.perform()
    whole = weights(done.folder)
    cut_after(done.folder, 4)
    assert resumed(done.folder).code == 0
    assert weights(done.folder) == whole


def test_a_run_resumes_across_epochs_with_accumulation(project: Project) -> None:
    project.write(
        train={"max_steps": 10, "save_steps": 3, "gradient_accumulation_steps": 3, "per_device_train_batch_size": 2},
        adapter=DROPOUT,
    )
    done = project.perform()
    whole = weights(done.folder)
    cut_after(done.folder, 6)
    assert resumed(done.folder).code == 0
    assert weights(done.folder) == whole


def test_other_rows_are_refused_on_resume(project: Project) -> None:
    done = project.perform()
    cut_after(done.folder, 2)
    rows = project.folder / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-2]))
    again = resumed(done.folder)
    assert again.code == 2
    assert "not those that this run began with" in again.error["what"]
    assert "rows: 16 → 14" in again.error["why"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(project: Project, number: signal.Signals) -> None:
    project.write(train={"max_steps": 400, "save_steps": 1000})
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"forge resume {folder.path.relative_to(project.folder)}" in output
    assert len(checkpoints(folder.checkpoints)) == 1
    assert (checkpoints(folder.checkpoints)[0] / MARK).exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_when_the_parent_is_killed_the_worker_saves_and_stops(project: Project) -> None:
    project.write(train={"max_steps": 2000, "save_steps": 5000})
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 2)
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not folder.busy(), seconds=60, pause=0.05)
    assert [event["kind"] for event in read_events(folder.events)][-1] == "stopped"
    assert (checkpoints(folder.checkpoints)[-1] / MARK).exists()


@pytest.fixture
def stopped(project: Project) -> RunFolder:
    """A run with a checkpoint and no end."""
    done = project.perform()
    cut_after(done.folder, 2)
    return done.folder


def test_a_changed_job_is_refused_by_name(project: Project, stopped: RunFolder) -> None:
    job = stopped.path / "job.toml"
    job.write_text(job.read_text().replace("learning_rate = 0.01", "learning_rate = 0.02"))
    output = project.forge("resume", str(stopped.path), code=2)
    assert "train.learning_rate: 0.01 → 0.02" in output


def test_a_changed_base_model_is_refused(project: Project, stopped: RunFolder) -> None:
    config = project.folder / "model" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps"', '"rms_norm_eps_"'))
    output = project.forge("resume", str(stopped.path), code=2)
    assert "the base model model has changed" in output


def test_another_number_of_processes_is_refused(project: Project, stopped: RunFolder) -> None:
    output = project.forge("resume", str(stopped.path), code=2, WORLD_SIZE="2")
    assert "WORLD_SIZE says 2 processes: forge starts the processes of a training itself" in output


def test_a_folder_in_use_is_refused(project: Project, stopped: RunFolder) -> None:
    with stopped.own():
        output = project.forge("resume", str(stopped.path), code=2)
    assert "is in use" in output


def test_what_is_no_run_is_refused(project: Project) -> None:
    assert "there is no run nothing" in project.forge("resume", "nothing", code=2)


def test_the_rotation_keeps_two_whole_checkpoints(project: Project) -> None:
    project.write(train={"max_steps": 10, "save_steps": 2})
    done = project.perform()
    assert [path.name for path in checkpoints(done.folder.checkpoints)] == ["checkpoint-8", "checkpoint-10"]
    for path in checkpoints(done.folder.checkpoints):
        assert json_of(path / MARK)["files"]["adapter_model.safetensors"]["sha256"]


def test_the_rotation_keeps_as_many_as_the_job_says(project: Project) -> None:
    project.write(train={"max_steps": 10, "save_steps": 2, "save_total_limit": 4})
    done = project.perform()
    assert len(checkpoints(done.folder.checkpoints)) == 4


@pytest.mark.slow
def test_a_default_that_has_changed_since_is_no_change_of_the_job(project: Project, stopped: RunFolder) -> None:
    path = stopped.path / "plan.json"
    plan = json_of(path)
    assert "data.max_bad_rows" not in plan["named"]
    plan["job"]["data"]["max_bad_rows"], plan["job_digest"] = 0.25, "of other defaults"
    path.write_text(json.dumps(plan))
    project.forge("resume", str(stopped.path))
    assert stopped.plan().job["data"]["max_bad_rows"] == 0.25
