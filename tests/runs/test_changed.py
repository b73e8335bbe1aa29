"""What has changed since a run began is told by name: files that it trains by, and its job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.discover import discover
from forge.errors import RunError
from forge.job.job import load_job
from forge.machine.probe import probe
from forge.parent.after import base_facts
from forge.parent.resume import check_unchanged, resume
from support.projects import cut_after
from support.rows import ONLINE, REWARDS, prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forge.disk.folder import RunFolder
    from support.projects import Project


@pytest.fixture
def stopped(project: Project, rows: Callable[[Sequence[Any]], None]) -> tuple[Path, RunFolder]:
    """A run of an online method with a checkpoint and no end, and the folder of its job."""
    rows(prompts(8))
    (project.folder / "helper.py").write_text("FACTOR = 1\n")
    (project.folder / "rewards.py").write_text("import helper\n" + REWARDS)
    (project.folder / "chat.jinja").write_text("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}")
    train = {"method": "grpo", **ONLINE, "max_steps": 2, "save_steps": 1}
    project.write(data={"chat_template": "./chat.jinja"}, train=train)
    done = project.perform()
    assert done.code == 0, done.printed
    cut_after(done.folder, 1)
    return project.folder, done.folder


def refusal(folder: RunFolder) -> str:
    with pytest.raises(RunError) as caught:
        check_unchanged(folder, folder.plan(), discover({}))
    return str(caught.value)


def test_a_resume_is_refused_once_a_file_that_the_run_trains_by_has_changed(stopped: tuple[Path, RunFolder]) -> None:
    job, folder = stopped
    check_unchanged(folder, folder.plan(), discover({}))
    for said in ("./rewards.py had", "helper.py had", "./chat.jinja had"):
        path = job / said.removesuffix(" had")
        before = path.read_text()
        path.write_text(before + "\n")
        assert said in refusal(folder)
        path.write_text(before)
        check_unchanged(folder, folder.plan(), discover({}))

    weights = job / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert "model.safetensors has another content" in refusal(folder)


def test_streamed_rows_that_have_changed_behind_the_first_are_noticed(project: Project) -> None:
    project.write(data={"streaming": True}, train={"max_steps": 2, "save_steps": 1})
    lines = (project.folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (project.folder / "rows.jsonl").write_text("".join(lines * 10))
    done = project.perform()
    assert done.code == 0, done.printed
    cut_after(done.folder, 1)
    (project.folder / "rows.jsonl").write_text("".join(lines * 9))
    assert "rows.jsonl had" in refusal(done.folder)


@pytest.mark.parametrize("where", ["job.toml", "runs"])
def test_a_finished_run_tells_what_its_job_says_by_now(project: Project, where: str) -> None:
    done = project.perform()
    assert done.code == 0, done.printed
    told: list[Any] = []
    resume(done.folder, discover({}), probe(), told.append)
    assert told == []
    path = project.folder / "job.toml" if where == "job.toml" else done.folder.path / "job.toml"
    path.write_text(path.read_text().replace("learning_rate = 0.01", "learning_rate = 0.02\nseed = 7"))
    resume(done.folder, discover({}), probe(), told.append)
    assert len(told) == 1
    assert "train.learning_rate: 0.01 → 0.02; train.seed: 42 → 7" in told[0].message
    assert f"`forge run {path}` begins a run with it" in told[0].do
    assert json.loads((done.folder.path / "trained.json").read_text())["weights"] == "adapter"


def test_a_finished_run_is_not_exported_with_another_base(project: Project) -> None:
    done = project.perform()
    assert done.code == 0, done.printed
    plan, trained = done.folder.plan(), done.folder.weights_or_refuse()
    job, weights = load_job(plan.job), project.folder / "model" / "model.safetensors"
    base_facts(done.folder, job, plan, trained, discover({}))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match=r"is not the base model .*: model\.safetensors has another content"):
        base_facts(done.folder, job, plan, trained, discover({}))


def test_a_job_that_cannot_be_read_by_now_is_told(project: Project) -> None:
    done = project.perform()
    (project.folder / "job.toml").write_text("[model\n")
    told: list[Any] = []
    resume(done.folder, discover({}), probe(), told.append)
    assert "cannot be read by now, and the run goes by its own copy" in told[0].message
