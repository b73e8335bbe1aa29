"""How fast a training is, told by its events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk.events import read_events
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.text.speed import Times
from forge_huggingface.speed.flops import flops
from support.tiny import make_rows

if TYPE_CHECKING:
    from support.projects import Project


def trained(project: Project, **tables: Any) -> Any:
    project.write(**tables)
    done = project.perform()
    assert done.code == 0, done.printed
    return done


def test_tokens_padding_and_work_are_counted_after_the_first_step(project: Project) -> None:
    done = trained(project, train={"max_steps": 6, "logging_steps": 2})
    (speed,) = done.of_kind("speed")
    assert speed["steps"] == 5
    last = [event["num_tokens"] for event in done.of_kind("step")][-1]
    assert 0 < speed["padding"] < 1
    assert speed["tokens"] == pytest.approx(last * 5 / 6, rel=0.2)  # the first step's are not among them
    assert speed["padded"] * (1 - speed["padding"]) == pytest.approx(speed["tokens"], rel=0.01)
    assert speed["tokens_per_second"] == pytest.approx(
        speed["tokens"] / speed["seconds"], rel=0.05
    )  # seconds are rounded
    plan = done.folder.plan()
    work = flops(settle(load_job(plan.job), plan.decisions), plan.facts)
    assert work is not None
    assert speed["flops"] * speed["seconds"] > speed["padded"] * work.token
    assert "share" not in speed  # a CPU's limit is unknown
    card = (done.folder.path / "README.md").read_text()
    assert f"tokens {speed['tokens_per_second']:,.0f} a second; " in card


def test_rows_of_one_length_have_no_padding(project: Project) -> None:
    row = json.dumps({"text": "one and the same text"})
    (project.folder / "rows.jsonl").write_text(f"{row}\n" * 16)
    (speed,) = trained(project).of_kind("speed")
    assert speed["padding"] == 0.0
    assert speed["tokens"] == speed["padded"]


def test_the_batch_of_the_probe_is_not_counted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from forge_huggingface.training import callbacks

    counted, probe = [], callbacks.probe

    def probed(trainer: Any, *rest: Any) -> Any:
        found = probe(trainer, *rest)
        counted.append((found["rows"], trainer.filled, trainer.sequences))
        return found

    monkeypatch.setattr(callbacks, "probe", probed)
    trained(project, train={"probe": True, "per_device_train_batch_size": 2})
    assert counted == [(2, 0, 0)]


def test_the_loss_of_the_probe_is_that_of_its_batch_however_many_make_a_step(project: Project) -> None:
    train = {"probe": True, "per_device_train_batch_size": 2, "max_steps": 1}
    found = [trained(project, train={**train, "gradient_accumulation_steps": steps}) for steps in (1, 4)]
    alone, many = (done.of_kind("probe")[0]["loss"] for done in found)
    assert many == pytest.approx(alone)


def test_the_probe_evaluations_and_checkpoints_are_no_part_of_the_steps(project: Project) -> None:
    train = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "save_steps": 2, "probe": True}
    done = trained(project, data={"eval_size": 4}, train=train)
    (speed,) = done.of_kind("speed")
    runtimes = sum(event["eval_runtime"] for event in done.of_kind("eval"))
    assert speed["evaluating"] >= runtimes > 0
    assert speed["saving"] >= sum(event["seconds"] for event in done.of_kind("checkpoint")) > 0
    began, ended = (done.of_kind(kind)[0]["time"] for kind in ("training", "speed"))
    parts = speed["first"] + speed["seconds"] + speed["evaluating"] + speed["saving"]
    assert ended - began - 0.1 < parts < ended - began + 0.02
    assert speed["evaluating"] + speed["saving"] > 0.04  # else the line above proves nothing


def test_the_times_of_a_run_are_told_by_what_they_went_into(project: Project) -> None:
    make_rows(project.folder / "rows.jsonl", 16)
    done = trained(project)
    times = Times(read_events(done.folder.events))
    assert list(times.seconds)[:5] == ["import", "collate", "load", "adapt", "prepare"]
    assert {"first step", "later steps", "checkpoints", "save weights"} <= times.seconds.keys()
    assert sum(times.seconds.values()) < 60
    assert times.lines[0].startswith("time ")
    assert "padding, which is" in times.facts["tokens"]
    assert Times([]).lines == []
