"""The page of a run that really was: it has what the run's files have."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from forge.disk.events import read_events
from forge_report.page import render
from forge_report.record import read_record
from support.projects import cut_after

if TYPE_CHECKING:
    from support.projects import Project


def test_the_page_of_a_run_shows_what_was_trained_and_measured(project: Project) -> None:
    project.write(data={"eval_size": 0.25}, train={"eval_strategy": "steps", "eval_steps": 2})
    done = project.perform()
    record = read_record(done.folder)
    assert (record.state, record.step, record.of) == ("trained", 4, 4)
    assert record.steps["loss"].y == done.losses
    assert {"loss", "grad_norm", "learning_rate", "memory", "mean_token_accuracy"} <= record.steps.keys()
    assert record.evals["loss"].x == [2, 4]
    assert all(math.isfinite(value) for series in record.steps.values() for value in series.y)
    assert set(record.sessions[0].stages) == {"collate", "load", "adapt", "train"}
    page = render(record)
    assert "This part cannot be shown" not in page
    files = json.loads((done.folder.path / "trained.json").read_text(encoding="utf-8"))["files"]
    for said in (
        json.loads((done.folder.path / "data.json").read_text(encoding="utf-8"))["digest"],
        files["adapter_model.safetensors"]["sha256"],
        done.of_kind("trainer")[0]["trainer"],
        "Held-out loss",
    ):
        assert said in page


@pytest.mark.slow
def test_a_run_that_was_gone_on_with_and_exported_shows_each_step_once(project: Project) -> None:
    project.write(export=[{"format": "adapter"}])
    project.forge("run", "job.toml")
    folder = project.newest()
    cut_after(folder, 2)
    project.forge("resume", str(folder.path))
    record = read_record(folder)
    steps = {event["step"]: event["loss"] for event in read_events(folder.events) if event["kind"] == "step"}
    assert record.steps["loss"].x == [1, 2, 3, 4]
    assert dict(zip(record.steps["loss"].x, record.steps["loss"].y, strict=True)) == steps
    assert (record.state, record.resumes, record.again) == ("trained", [2], 2)
    assert [each.task for each in record.sessions] == ["training", "export", "training"]
    assert {each.end for each in record.sessions} == {"done"}
    assert "1-adapter" in render(record)
    printed = project.forge("runs", folder.path.name, "--html")
    assert (project.folder / printed.strip()).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
