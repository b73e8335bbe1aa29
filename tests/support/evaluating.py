"""Evaluations in this process, for tests."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import Task, Who
from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.job.read import change_of, parse
from forge.machine.probe import probe
from forge.parent.after import plan_answers
from forge.planning.needs import asked_models
from forge.planning.planner import export_plan
from forge.worker.stages import Stages
from support.projects import Finished, Project, json_of, perform_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from forge.api import Generator

METRICS = """
def lengths(*, completions, references):
    return [{"short": len(said) < 40, "characters": len(said)} for said in completions]


def broken(*, completions, references):
    return [said[10_000] for said in completions]


def needs_level(*, completions, level):
    return [float(level_ == "easy") for level_ in level]


def no_list(*, completions):
    return 1.0


async def later(*, prompts, completions):
    return [prompt[-1]["role"] == "user" for prompt in prompts]


def no_completions(*, answers):
    return [0.0 for _ in answers]
"""


COPIES = itertools.count(1)


class Evaluation:
    """Evaluates a finished run; each call in a copy of its folder.

    Args:
        project: The project.
        folder: The run.
    """

    def __init__(self, project: Project, folder: RunFolder) -> None:
        self.project, self.folder = project, folder

    def __call__(self, *changes: str, models: Sequence[str] | None = None, gguf: Path | None = None) -> Finished:
        """Return the finished evaluation with ``--set`` changes; ``Finished.folder`` is the copy."""
        copy = self.folder.path.with_name(f"{self.folder.path.name}-copy{next(COPIES)}")
        shutil.copytree(self.folder.path, copy)
        folder = RunFolder(copy)
        before = folder.plan()
        stored = load_job(before.job)
        text = (copy / "job.toml").read_text(encoding="utf-8")
        file = parse(
            text,
            "job.toml",
            stored.folder,
            PluginKeys(discover({})),
            [change_of(text) for text in [*before.overrides, *changes]],
        )
        asked = models or asked_models(file.job)
        plan = plan_answers(folder, file, Task.EVAL, asked, discover({}), probe(), gguf=gguf)
        plan = replace(plan, target="evaluation.json")
        return perform_in(Run(folder=copy, plan=plan), folder)

    def found(self, *changes: str, **more: Any) -> dict[str, Any]:
        """Return what an evaluation wrote."""
        done = self(*changes, **more)
        assert done.code == 0, done.printed
        found: dict[str, Any] = json_of(done.folder.path / "evaluation.json")
        return found


def exported(done: Finished, index: int) -> Finished:
    """Make an export of a finished run in this process."""
    plan, trained = done.folder.plan(), done.folder.trained()
    assert trained is not None
    made = export_plan(load_job(plan.job), index, discover({}), probe(), plan.facts, trained.traits, plan.source)
    made = replace(made, decisions=(*plan.decisions, *made.decisions))
    return perform_in(Run(folder=done.folder.path, plan=made), done.folder)


def generator_of(folder: RunFolder, source: str = "tuned") -> Generator:
    """Return what answers for a finished run, in this process."""
    before = folder.plan()
    stored = load_job(before.job)
    text = (folder.path / "job.toml").read_text(encoding="utf-8")
    file = parse(
        text, "job.toml", stored.folder, PluginKeys(discover({})), [change_of(text) for text in before.overrides]
    )
    plan = plan_answers(folder, file, Task.CHAT, [Who(source)], discover({}), probe())
    run = Run(folder=folder.path, plan=plan)
    trained = folder.trained()
    assert trained is not None
    return Stages(run, settle(file.job, plan.decisions)).generate(trained, Who(source))


def heard(stream: Iterator[str]) -> tuple[list[str], Any]:
    """Return the pieces of an answer, and its end."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


ASKED = [{"role": "user", "content": "Name a colour."}]
