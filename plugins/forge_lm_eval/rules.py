"""What can be said about the harness's tasks before anything is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Problem, measured_by

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from forge.api import Job, Machine, ModelFacts


NAME = "lm-eval"

SILENT = frozenset({"classification", "embedding", "reranker", "reward"})
"""Methods that leave no language model."""


def asked(job: Job) -> list[str]:
    """Return the tasks, groups and tags that a job names."""
    found = (measured_by(metric) for metric in (job.eval.metrics if job.eval else ()))
    return [each[1] for each in found if each is not None and each[0] == NAME]


def folders(job: Job) -> list[Path]:
    """Return the folders of tasks that a job brings, ``include_path``."""
    told = job.plugins.get(NAME, {}).get("include_path") or []
    return [job.path(path) for path in ([told] if isinstance(told, str) else told)]


def cannot_ask(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - a probe's signature
    """Say why the harness cannot ask a job's model, or None."""
    if facts.task != "text":
        return f"it asks language models that read and write text, and this one is of the kind {facts.task}"
    if job.train.method in SILENT:
        return f'it asks models that write text, and method = "{job.train.method}" leaves one that gives numbers'
    return None


def problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with the tasks that a job names, as far as the job itself tells."""
    for index, metric in enumerate(job.eval.metrics if job.eval else ()):
        if measured_by(metric) == (NAME, ""):
            yield Problem(f"eval.metrics.{index}", "names no task", f'write "{NAME}:gsm8k"')
    for folder in folders(job):
        if not folder.is_dir():
            say = "relative paths start at the folder of the job"
            yield Problem(f"plugins.{NAME}.include_path", f"there is no folder {folder}", say)
