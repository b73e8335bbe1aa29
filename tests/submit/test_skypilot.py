"""Jobs for SkyPilot: the task file, and a double of `sky`, since no test may start a machine that costs money."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from support.doubles.sky import Cloud, install
from support.projects import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the double's commands are shell scripts")

ASKED = ("submit", "job.toml", "--to", "skypilot", "-o", "bucket=s3://mine", "-o", "accelerators=A100:1")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    commands = install(tmp_path / "cloud")
    monkeypatch.setenv("PATH", os.pathsep.join([str(commands), os.environ["PATH"]]))
    return Cloud(tmp_path / "cloud")


def name_of(project: Project) -> str:
    (ticket,) = project.runs.glob("*/*/ticket.json")
    return f"forge-{ticket.parent.parent.name}-{ticket.parent.name}"


def test_the_task_says_which_machine_and_holds_no_secret(cloud: Cloud, project: Project) -> None:
    more = (
        "-o",
        "use_spot=true",
        "-o",
        'secrets=["MINE"]',
        "-o",
        "infra=aws/us-east-1",
        "-o",
        "setup=[\"echo 'a: b'\"]",
    )
    said = project.forge(*ASKED, *more, "--dry-run", MINE="not-to-be-seen")
    (file,) = project.runs.glob("*/*/submit/task.yaml")
    task = yaml.safe_load(file.read_text())
    assert task["resources"] == {"infra": "aws/us-east-1", "accelerators": "A100:1", "use_spot": True}
    assert task["workdir"] == str(file.parent)
    assert task["file_mounts"] == {"/runs": {"source": "s3://mine", "mode": "MOUNT_CACHED"}}
    assert task["secrets"] == {"MINE": None}
    assert "forge-train[huggingface]==" in task["setup"]
    assert task["setup"].startswith("echo 'a: b'\n")
    for part in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=task[part], text=True).returncode == 0
    assert "not-to-be-seen" not in said
    assert not any("not-to-be-seen" in path.read_text() for path in file.parent.glob("*.*"))


def test_a_real_skypilot_reads_the_task(cloud: Cloud, project: Project) -> None:
    sky = pytest.importorskip("sky", reason="skypilot is not installed")
    project.forge(*ASKED, "-o", "use_spot=true", "-o", 'secrets=["MINE"]', "--dry-run", MINE="x")
    (file,) = project.runs.glob("*/*/submit/task.yaml")
    task = sky.Task.from_yaml_config(yaml.safe_load(file.read_text()), secrets_overrides=[("MINE", "x")])
    (resources,) = task.resources
    assert resources.use_spot
    assert resources.accelerators == {"A100": 1}


def test_a_job_is_sent_trained_looked_at_and_fetched(cloud: Cloud, project: Project) -> None:
    project.forge(*ASKED)
    log = project.forge("logs", "job", "--follow")
    assert "step 4/4" in log
    assert "done  skypilot" in project.forge("runs")
    assert "trained" in project.forge("fetch", "job")
    project.newest().check_trained()
    assert "trained  skypilot" in project.forge("runs")


@pytest.mark.slow
def test_a_spot_machine_that_goes_is_followed_by_one_that_goes_on(cloud: Cloud, project: Project) -> None:
    steps = ("train.max_steps=3000", "train.save_steps=200", "train.logging_steps=500")
    project.forge(*ASKED, "-o", "use_spot=true", *(word for step in steps for word in ("--set", step)))
    kept = cloud.folder / "buckets" / "s3" / "mine"
    wait_for(lambda: list(kept.glob("*/*/checkpoints/checkpoint-400/complete.json")), 120, 0.05)
    subprocess.run(["sky", "preempt", name_of(project)], check=True)
    log = project.forge("logs", "job", "--follow")
    assert "train   3000 steps from step" in log
    assert "step 3000/3000" in log
    project.forge("fetch", "job")
    project.newest().check_trained()


def test_a_job_is_cancelled(cloud: Cloud, project: Project) -> None:
    project.forge(*ASKED, "--set", "train.max_steps=100000")
    wait_for(lambda: "running" in project.forge("runs"), 30, 0.1)
    assert "cancelled (CANCELLED)" in project.forge("cancel", "job")


def test_what_is_wrong_is_told_before_anything_is_sent(project: Project) -> None:
    said = project.forge(*ASKED[:4], "-o", 'secrets=["NOT_SET"]', code=2, PATH="/usr/bin:/bin")
    assert "sky is not installed here" in said
    assert "no bucket is named" in said
    assert "NOT_SET" in said
    assert not list(project.folder.glob("runs/*"))
