"""What runs took is kept for later plans, and ``forge doctor --measure`` trains a job of no meaning to know it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from forge.cli import cli
from forge.disk import speeds
from forge.disk.events import read_events
from forge.machine.presets import PRESETS
from forge.machine.probe import probe
from forge.parent.timing import remember, timed_of
from forge_huggingface.facts.describe import describe
from forge_huggingface.speed.trial import write

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project


@pytest.fixture(autouse=True)
def empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))


def test_a_finished_run_is_put_into_the_machines_table(project: Project) -> None:
    project.write(train={"max_steps": 7})
    done = project.perform()
    plan = done.folder.plan()
    assert remember(done.folder, plan) is None
    (run,) = speeds.read(plan.machine).runs
    assert (run.backend, run.parameters, run.bits, run.checkpointing) == (
        "huggingface",
        plan.facts.parameters,
        None,
        False,
    )
    speed = done.of_kind("speed")[0]
    assert (run.flops, run.tokens_per_second) == (speed["flops"], speed["tokens_per_second"])
    assert speed["first"] < run.start < 60
    later = list(read_events(done.folder.events))
    went_on = [event | {"from": 2} if event["kind"] == "training" else event for event in later]
    assert timed_of(went_on, plan) is None
    assert timed_of([event for event in later if event["kind"] != "speed"], plan) is None


def test_a_run_of_few_steps_tells_too_little(project: Project) -> None:
    done = project.perform()
    assert remember(done.folder, done.folder.plan()) is None
    assert speeds.read(done.folder.plan().machine).runs == ()


@pytest.mark.parametrize("machine", ["linux-cpu", "linux-h100"])
def test_the_trial_is_a_whole_model_with_rows_of_one_length(tmp_path: Path, machine: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write(tmp_path, PRESETS[machine])
    facts = describe("model", None, tmp_path)
    assert facts.note is None
    assert facts.parameters == {"linux-cpu": 6_950_144, "linux-h100": 568_887_296}[machine]
    if machine == "linux-cpu":
        model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
        assert not any(info.values())
        assert sum(each.numel() for each in model.parameters()) == facts.parameters
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
        lines = (tmp_path / "rows.jsonl").read_text().splitlines()
        assert len(set(lines)) == 1
        ids = tokenizer(lines[0][10:-2])["input_ids"]
        assert len(ids) == 127
        assert tokenizer.unk_token_id not in ids


@pytest.mark.slow
def test_doctor_measures_each_backend_and_says_why_not() -> None:
    done = CliRunner().invoke(cli, ["doctor", "--measure"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "unsloth-text is not measured: " in done.output
    assert "measured  huggingface, 6.95 M parameters: " in done.output
    assert "TFLOP/s (1 run)" in CliRunner().invoke(cli, ["doctor"], catch_exceptions=False).output


def test_doctor_tells_what_is_known_and_what_is_of_other_versions() -> None:
    here = probe()
    values: dict[str, Any] = {"parameters": 10**9, "bits": "4bit", "checkpointing": True, "start": 20.0, "when": 1.0}
    run = speeds.Timed(backend="huggingface", flops=2e14, tokens_per_second=5e4, **values)
    speeds.add(here, run)
    speeds.add(replace(here, versions={**here.versions, "torch": "1"}), run)
    lines = CliRunner().invoke(cli, ["doctor"], catch_exceptions=False).output.splitlines()
    what = "huggingface, 1 B parameters, 4bit, gradient checkpointing: 20.0 s to start, 50,000 tokens/s, 200 TFLOP/s"
    assert f"measured  {what} (1 run)" in lines
    assert "measured  1 of other versions of the libraries, which are not used" in lines


@pytest.mark.slow
def test_a_run_tells_what_its_time_went_into(project: Project) -> None:
    output = project.forge("run", "job.toml")
    assert 'train.kernels = "none": ' in output  # as the job file would say it
    assert re.search(r"^loss +\d\.\d{4}$", project.forge("runs", project.newest().path.name), re.MULTILINE)
    folder = str(project.newest().path)
    assert "trained" in output
    told = project.forge("runs", folder)
    assert "time " in told
    assert "load " in told
    assert "a second; " in told
    assert "--dry-run" not in told, "of what ran nothing is unknown"
    assert "--dry-run" in project.forge("plan", "job.toml")
    assert "Speed: step " in (project.newest().path / "README.md").read_text()


def test_doctor_measures_nothing_that_it_cannot_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "file" / "cache"))
    done = CliRunner().invoke(cli, ["doctor", "--measure"], catch_exceptions=False)
    assert "huggingface is not measured: what it took could not be kept: " in done.output
    assert "kept in" not in done.output
