"""Doing what a plan says, in this process, and turning whatever happens into an event and an exit code."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from forge.api.event import Done, Failed, Noted, Stopped, Warned
from forge.api.plan import Training
from forge.disk.checkpoints import MARK, checkpoints, newest_whole
from forge.disk.files import disk_full, is_disk_full, sweep
from forge.errors import DiskFull, ForgeError, Interrupted, RunError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.imports import preload
from forge.worker.stages import Stages
from forge.worker.tasks import TASKS

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api.run import Run
    from forge.disk.folder import RunFolder
    from forge.worker.sink import Sink


def resume_point(run: Run, folder: RunFolder) -> Path | None:
    """Return the newest whole checkpoint, set damaged ones aside, and say both."""
    whole, rejected = newest_whole(folder.checkpoints)
    damaged = []
    for path, reason in rejected:
        if (path / MARK).exists():  # it was whole once, so somebody may want it
            aside = next(
                other
                for count in range(1, 1000)
                if not (other := path.with_name(f"damaged-{path.name}" + (f".{count}" if count > 1 else ""))).exists()
            )
            path.rename(aside)
            damaged.append(reason)
            run.emit(Warned(f"{path.name} cannot be used: {reason}; it is now {aside.name}"))
        else:
            run.emit(Warned(f"{path.name} cannot be used: {reason}; it is deleted"))
            shutil.rmtree(path)
    if damaged and whole is None:
        raise RunError(
            f"no checkpoint in {folder.checkpoints} is whole any more",
            damaged[0],
            "restore one of those called damaged-…, or start a new run",
        )
    for path in checkpoints(folder.checkpoints):  # older ones, in whose deletion an earlier worker was killed
        if not (path / MARK).exists():
            shutil.rmtree(path)
    where = f"going on from {whole.name}" if whole else "no whole checkpoint: starting at step 0"
    run.emit(Noted(where))
    return whole


def perform(run: Run, folder: RunFolder, sink: Sink) -> int:
    """Do what the run's plan says and return the exit code; an error becomes an event, and a traceback in the log.

    Args:
        run: The run.
        folder: Its folder.
        sink: Where its events go; the plan's observers are let in.
    """
    plan = run.plan
    try:
        with folder.own():
            sweep(folder.path)
            job = settle(load_job(plan.job), plan.decisions)
            preload(plan)
            sink.admit(plan)
            if isinstance(plan, Training) and plan.resume:
                run = replace(run, resume=resume_point(run, folder))
            TASKS[plan.task](job, run, Stages(run, job), folder)
    except Interrupted as error:
        run.emit(Stopped(error.what))
        return error.exit_code
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the last line of defence: nothing may end without a word
        traceback.print_exc()
        known = explain(error, folder)
        with contextlib.suppress(OSError):  # on a full disk even this may fail; the exit code remains
            run.emit(Failed(known.to_json()))
        return known.exit_code
    run.emit(Done(plan.task))
    return 0


def explain(error: BaseException, folder: RunFolder) -> ForgeError:
    """Return an error that a user can read."""
    if isinstance(error, DiskFull):
        return error
    if isinstance(error, ForgeError):
        if error.__cause__ is not None and is_disk_full(error.__cause__):
            return disk_full(folder.path / "checkpoints")
        return error
    if is_disk_full(error):
        return disk_full(folder.path / "log.txt")
    return ForgeError("forge itself failed", f"{type(error).__name__}: {error}", f"please report it with {folder.log}")
