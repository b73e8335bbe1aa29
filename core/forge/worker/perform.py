"""Doing what a plan says, in this process, and turning whatever happens into an event and an exit code."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

from forge.api.code import know_code
from forge.api.event import Done, Failed, Noted, Preloaded, Stopped, Warned
from forge.api.functions import know
from forge.api.plan import Task, Training
from forge.disk.checkpoints import MARK, checkpoints, newest_marked, newest_whole
from forge.disk.faults import is_hard, machine_error
from forge.disk.files import sweep
from forge.disk.spare import restore
from forge.errors import (
    BackendImportError,
    ExportError,
    ForgeError,
    Interrupted,
    MachineError,
    PeerLost,
    PluginError,
    RunError,
    told_by,
)
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.faults import log_traceback
from forge.worker.imports import preload
from forge.worker.keeping import keep
from forge.worker.ranks import join, peer_lost
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


def perform(run: Run, folder: RunFolder, sink: Sink, began: float | None = None) -> int:
    """Do what the run's plan says and return the exit code; an error becomes an event, and a traceback in the log.

    Args:
        run: The run.
        folder: Its folder.
        sink: Where its events go; the plan's observers are let in.
        began: When the process began, in seconds since the epoch; now if it is not told.
    """
    plan, began = run.plan, time.time() if began is None else began
    with contextlib.ExitStack() as owned:  # until the last event is written: who sees the folder free sees how it ended
        try:
            if run.rank == 0:
                owned.enter_context(folder.own())
                sweep(folder.path)
                restore(folder.path)
            job = settle(load_job(plan.job), plan.decisions)
            know_code(folder.code(plan))
            preload(plan)
            join(run, os.environ)
            know(plan.functions)
            if run.rank == 0:
                sink.admit(run)
            run.emit(Preloaded(round(time.time() - began, 3)))
            stages = Stages(run, job)
            stages.resolve()
            if isinstance(plan, Training):
                run.keeper = partial(keep, run, folder.checkpoints)
                run.resume = run.group.first(resume_point(run, folder) if plan.resume and run.rank == 0 else None)
            TASKS[plan.task](job, run, stages, folder)
            run.group.first(None)  # none goes before rank 0 has written what all have made
        except Interrupted as error:
            run.emit(Stopped(f"{error.what}: {error.why}" if error.why else error.what))
            return error.exit_code
        except BaseException as error:  # noqa: BLE001 - the last line of defence: nothing may end without a word
            owned.close()  # the fault may be that no further file can be opened
            log_traceback()
            known = explain(error, run, folder)
            with contextlib.suppress(OSError, MachineError):  # then the parent looks at the disk itself
                run.emit(Failed(known.to_json()))
            return known.exit_code
        run.emit(Done(plan.task))
    return 0


def explain(error: BaseException, run: Run, folder: RunFolder) -> ForgeError:
    """Return an error that a user can read; of a fault of the machine, with what is kept and how to go on."""
    if run.world_size > 1 and (lost := error if isinstance(error, PeerLost) else peer_lost(error)) is not None:
        return lost
    fault = machine_fault(error, folder)
    if fault is not None and run.plan.task is Task.TRAIN and folder.checkpoints.parent.is_dir():
        whole = newest_marked(folder.checkpoints)
        kept = f"{whole.name} is whole" if whole else "no checkpoint had been saved yet"
        return type(fault)(fault.what, f"{fault.why}; {kept}", f"{fault.do}, then forge resume {folder.path}")
    if fault is not None:
        return fault
    if isinstance(error, ForgeError):
        return error
    return ForgeError("forge itself failed", told_by(error), f"please report it with {folder.log}")


def machine_fault(error: BaseException, folder: RunFolder) -> MachineError | None:
    """Return an error as a fault of the machine, or None if it is none.

    What a library or plugin made of such a fault is looked through, a :class:`forge.errors.UsageError` apart where the
    fault is a missing right or a name: it says which model, rows or file cannot be read.
    """
    fault = machine_error(error, folder.unfinished(), wide=not isinstance(error, ForgeError))
    if isinstance(error, ForgeError) and not isinstance(error, PluginError | BackendImportError | ExportError):
        return fault if is_hard(error) else None
    return fault
