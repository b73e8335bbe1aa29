"""Rows that a job names and that are not here, as far as their names alone can tell.

Only what reads the rows knows all that a path may stand for. Where it can only be a file, and none is there, it is told
sooner: a run would end of it, and a job that is sent elsewhere would wait in a queue for that.
"""

from __future__ import annotations

import glob
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api.functions import read_by
from forge.api.stage import Stage
from forge.disk.named import may_be_on_hub, may_hold_rows
from forge.errors import Problem
from forge.job.nearest import did_you_mean
from forge.planning.mistakes import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api.plan import Plan
    from forge.discovery.catalogue import Catalogue
    from forge.job.job import Job
    from forge.job.read import JobFile

_MEND = "mend the path, which starts at the job's folder"


def absent(job: Job, *, elsewhere: bool = False) -> Iterator[Problem]:
    """Yield a problem for each file or folder of rows that a job names and that is not here.

    A path for a plugin's reader and what may be a data set on the hub are not looked for.

    Args:
        job: The job.
        elsewhere: It will run on another machine with this one's disk: a whole path may be of that machine alone.
    """
    for key, text in _paths(job):
        if read_by(text) or (elsewhere and Path(text).is_absolute()):
            continue
        with suppress(OSError):  # a name that is too long, a folder of another user: what reads it will say so
            path = job.path(text)
            if path.exists() or may_be_on_hub(text):
                continue
            if glob.has_magic(text):
                if next(glob.iglob(str(path), recursive=True), None) is None:  # noqa: PTH207 - may be absolute
                    yield Problem(key, f"no file matches {text}", "mend the pattern")
                continue
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            there = [str(Path(text).with_name(each.name)) for each in beside if may_hold_rows(each)]
            yield Problem(key, f"{text} is not here", did_you_mean(text, sorted(there), _MEND))


def refuse_absent(file: JobFile, plan: Plan, catalogue: Catalogue, *, elsewhere: bool = False) -> None:
    """Refuse a job whose rows are not here, if forge's own plugins read them: another may know more of such a path.

    Raises:
        JobError: Each that is missing, with its line.
    """
    asked = "data." if not any(step.stage is Stage.TRAIN for step in plan.steps) else ""
    if all(getattr(catalogue.find(step.plugin), "own", False) for step in plan.steps if step.stage is Stage.COLLATE):
        refuse(file, [each for each in absent(file.job, elsewhere=elsewhere) if each.where.startswith(asked)])


def _paths(job: Job) -> Iterator[tuple[str, str]]:
    """Yield what a job reads rows from, with the key that says it."""
    named = [("data.path", job.data.path), ("data.eval_path", job.data.eval_path)]
    named += [(f"data.sources.{at}.path", source.path) for at, source in enumerate(job.data.sources)]
    named += [("eval.path", job.eval.path)] if job.eval else []
    for key, value in named:
        yield from ((key, text) for text in ([value] if isinstance(value, str) else value or ()))
