"""Jobs for Hugging Face Jobs: against a double of the service, since no test may start a machine that costs money."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from forge.disk.folder import RunFolder
from support.doubles.jobs import TOKEN, Jobs
from support.projects import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.projects import Project

ASKED = ("submit", "job.toml", "--to", "hf-jobs", "-o", "flavor=a10g-small", "-o", "timeout=2h")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    (tmp_path / "service").mkdir()
    with Jobs(tmp_path / "service") as started:
        monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
        for name, value in started.environment().items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.mark.slow
def test_a_job_is_sent_trained_looked_at_and_fetched(service: Jobs, project: Project) -> None:
    said = project.forge(*ASKED)
    assert "a10g-small is 0.0167 USD a minute, at most 2.00 USD" in said
    assert f"sent    hf-jobs tester/job1: {service.url}/jobs/tester/job1" in said
    asked = service.jobs["job1"].asked
    assert asked["timeoutSeconds"] == 7200
    assert asked["secrets"] == {"HF_TOKEN": TOKEN}
    assert asked["environment"]["FORGE_STOP_AFTER"] == "6300"
    log = project.forge("logs", "job", "--follow")
    assert "step 4/4" in log
    wait_for(lambda: "done" in project.forge("runs"), 30, 0.3)
    assert "done  hf-jobs tester/job1: COMPLETED" in project.forge("runs")
    assert "trained" in project.forge("fetch", "job")
    folder = project.newest()
    folder.check_trained()
    assert "trained  hf-jobs tester/job1: COMPLETED" in project.forge("runs")
    assert TOKEN not in "".join(path.read_text(errors="replace") for path in folder.path.rglob("*") if path.is_file())
    assert not any(TOKEN.encode() in path.read_bytes() for path in service.root.rglob("*.py"))


@pytest.mark.slow
def test_a_job_that_is_out_of_time_goes_on_at_its_next_attempt(service: Jobs, project: Project) -> None:
    long = ("--set", "train.max_steps=14000", "--set", "train.save_steps=1000000", "--set", "train.logging_steps=1000")
    project.forge(*ASKED[:6], "-o", "timeout=120s", "-o", "seconds_before_timeout=60", "-o", "attempts=9", *long)
    said = project.forge("logs", "job", "--follow")
    assert "stopped at step" in said
    assert re.search(r"train   14000 steps from step [1-9]", said)
    assert service.jobs["job1"].starts > 1
    wait_for(lambda: "done" in project.forge("runs"), 60, 1)
    project.forge("fetch", "job")
    assert "step 14000/14000" in project.forge("runs")


@pytest.mark.slow
def test_cancelled_is_what_the_service_says(tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service").mkdir()
    with Jobs(tmp_path / "service", held=True) as service:
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        project.forge(*ASKED)
        assert "waiting  hf-jobs tester/job1: SCHEDULING" in project.forge("runs")
        assert "has made nothing yet: hf-jobs tester/job1 is waiting" in project.forge("fetch", "job", code=2)
        assert "cancelled (CANCELED)" in project.forge("cancel", "job")


def test_what_is_wrong_is_told_before_anything_is_sent(service: Jobs, project: Project) -> None:
    said = project.forge(*ASKED[:4], code=2)
    assert "no flavor is asked for" in said
    assert "it would end after 30 minutes" in said
    said = project.forge(*ASKED[:4], "-o", "flavor=a1000", "-o", "timeout=2h", "-o", 'secrets=["NOT_SET"]', code=2)
    assert "there is no flavor a1000" in said
    assert "secrets that are set here by no value: NOT_SET" in said
    said = project.forge(*ASKED, code=2, HF_TOKEN="hf_wrong")
    assert "asking the hub failed" in said
    assert "`hf auth login`" in said
    assert "you are not logged in" in project.forge(*ASKED, code=2, HF_TOKEN="")
    assert not service.jobs
    assert not list(project.folder.glob("runs/*"))


def test_a_dry_run_needs_no_service_and_says_what_it_would_object_to(project: Project) -> None:
    said = project.forge(*ASKED, "--dry-run", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN=TOKEN, HF_HUB_OFFLINE="0")
    assert "# /// script" in said
    assert "it would be refused: asking the hub failed" in said
    assert TOKEN not in said
    (folder,) = project.runs.glob("*/*")
    assert json.loads((folder / "submit" / "request.json").read_text())["secrets"] == ["HF_TOKEN"]
    assert RunFolder(folder).ticket() is None
