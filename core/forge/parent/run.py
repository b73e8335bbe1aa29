"""A run as the parent sees it: plan, work, try once more where another plan may help.

The parent holds no model and imports nothing heavy, so it is still there to explain when a worker dies of memory, of a
driver, or of ``kill -9``.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from forge.api.event import Noted, Warned
from forge.api.plan import Plan, Task
from forge.api.stage import Stage
from forge.discovery.describe import describe_model
from forge.disk.folder import RunFolder
from forge.errors import BackendImportError, OutOfMemory, PlanError
from forge.job.decisions import Decision, settle
from forge.job.literal import setting
from forge.parent.after import finish, heed
from forge.parent.process import check_one_process, quiet, work
from forge.parent.timing import remember
from forge.planning.absent import refuse_absent
from forge.planning.planner import make_plan

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.parent.process import Outcome, Ready, Show


ATTEMPTS = 8


def run(
    file: JobFile,
    catalogue: Catalogue,
    machine: Machine,
    runs: Path,
    show: Show,
    *,
    task: Task = Task.TRAIN,
    rows: int = 0,
    ready: Ready = quiet,
    into: Path | None = None,
) -> RunFolder:
    """Plan a job, run it, evaluate what came of it, and make its exports.

    Args:
        file: The job.
        catalogue: The plugins.
        machine: This machine.
        runs: The folder of all runs.
        show: Called with each event.
        task: To train, to try (a dry run), or to show rows.
        rows: How many rows to show.
        ready: Called when a plan has been written, before its worker starts.
        into: The run's own folder, instead of a fresh one below ``runs``.

    Raises:
        ForgeError: Of whatever kind stopped the run; a trained model whose export failed is safe.
    """
    check_one_process(os.environ)
    facts = describe_model(catalogue, file.job.model.id, file.job.model.revision, file.job.folder)
    make = functools.partial(make_plan, file, catalogue, machine, facts, task=task, rows=rows)
    plan = make()
    refuse_absent(file, plan, catalogue)
    folder = RunFolder.create(runs, file, into)
    folder.keep_code(catalogue.code)
    excluded: dict[str, str] = {}
    relief: list[Decision] = []
    for attempt in range(1, ATTEMPTS + 1):
        path = folder.add_plan(plan)
        folder.write_lock(settle(file.job, plan.decisions), plan)
        ready(folder, plan)
        outcome = work(folder, path, show)
        if outcome.error is None:
            break
        if attempt == ATTEMPTS or not _another(outcome, plan, file, excluded, relief):
            raise outcome.error
        try:
            plan = make(excluded=excluded, relief=relief, attempt=attempt + 1)
        except PlanError:  # nothing else can serve
            raise outcome.error from None
        show(Warned(f"{outcome.error}; trying again with {_other(relief)}"))
    if task is Task.TRAIN:
        if why := remember(folder, plan):
            show(Noted(f"what this run took is not kept for later plans: {why}"))
        heed(outcome, folder)
        finish(folder, catalogue, machine, show)
    return folder


def _another(outcome: Outcome, plan: Plan, file: JobFile, excluded: dict[str, str], relief: list[Decision]) -> bool:
    """Decide whether to try once more, and with what: another backend, or a setting that takes less memory."""
    if outcome.asked:
        return False
    error = outcome.error
    if isinstance(error, BackendImportError):
        named = {getattr(file.job.use, stage.value) for stage in Stage}
        planned = error.plugin in {step.plugin for step in plan.steps}
        if not planned or file.job.use.backend != "auto" or error.plugin in named:
            return False
        excluded[str(error.plugin)] = f"failed in attempt {plan.attempt}: {error}"
        return True
    if isinstance(error, OutOfMemory) and error.probing:
        changes = [Decision(**change) for change in error.relief]
        if changes and not any(_fixed(change.key, file) for change in changes):
            relief[:] = [*relief, *changes]
            return True
    return False


def _fixed(key: str, file: JobFile) -> bool:
    """Whether the user wrote a key, and not that forge is to decide it."""
    table, _, name = key.partition(".")
    return key in file.named and file.job.tables().get(table, {}).get(name) != "auto"


def _other(relief: list[Decision]) -> str:
    """Name what the next attempt does in another way."""
    newest = {change.key: change for change in relief}
    changed = [setting(key, change.value) for key, change in newest.items() if change.value is not None]
    return f"another plan, with {' and '.join(changed)}" if changed else "another plan"
