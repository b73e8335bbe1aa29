"""Going on with a run that was stopped or killed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api.event import Warned
from forge.api.plan import Plan, Task
from forge.api.stage import Stage
from forge.discovery.describe import describe_model
from forge.discovery.keys import PluginKeys
from forge.disk.inputs import altered
from forge.errors import ForgeError, JobError, PlanError, RunError
from forge.job.decisions import differences, settle
from forge.job.job import load_job
from forge.job.read import Change
from forge.parent.after import finish, heed
from forge.parent.process import check_one_process, quiet, work
from forge.planning.planner import make_plan
from forge.planning.renewing import renewed, renewed_plugins, respread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from forge.api.plan import Training
    from forge.discovery.catalogue import Catalogue
    from forge.disk.folder import RunFolder
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.parent.process import Ready, Show

_TRAINING = frozenset({Stage.COLLATE, Stage.LOAD, Stage.ADAPT, Stage.TRAIN})


def resume(
    folder: RunFolder,
    catalogue: Catalogue,
    machine: Machine,
    show: Show,
    *,
    ready: Ready = quiet,
    processes: int | None = None,
) -> None:
    """Go on with a run from its newest whole checkpoint, then make the evaluation and exports that are missing.

    Args:
        folder: The run's folder.
        catalogue: The plugins.
        machine: The machine.
        show: Takes the events.
        ready: Called once the plan is there.
        processes: In how many processes of a node to go on; None for as many as before, or as there are GPUs by now.

    Raises:
        RunError: The run is in use, or its job, base model, plugins or number of processes have changed.
        ForgeError: As :func:`forge.parent.run.run`.
    """
    if folder.busy():
        raise RunError(f"{folder.path} is in use", "its worker still runs", "wait for it, or stop it, then try again")
    tell_of_changes(folder, catalogue, show)
    if folder.trained() is None:
        check_one_process(os.environ)
        plan = folder.plan()
        check_unchanged(folder, plan, catalogue)
        for note in (*_moved(plan, machine), *renewed_plugins(plan.versions(), catalogue)):
            show(Warned(note))
        plan = renewed(plan, catalogue, machine)
        launch = folder.job_file(PluginKeys(catalogue)).job.launch
        spread = respread(plan, launch.model_copy(update={"processes": processes or launch.processes}), machine)
        if spread.launch.world_size != plan.launch.world_size:
            check_number(folder, spread, catalogue, machine)
        plan = spread
        plan = replace(plan, resume=True, task=Task.TRAIN, attempt=plan.attempt + 1)
        path = folder.add_plan(plan)
        ready(folder, plan)
        outcome = work(folder, path, show)
        if outcome.error is not None:
            raise outcome.error
        heed(outcome, folder)
    finish(folder, catalogue, machine, show)


def check_number(folder: RunFolder, plan: Training, catalogue: Catalogue, machine: Machine) -> None:
    """Plan a run's job anew for as many processes as it is to go on in, with the plugins that it has.

    Raises:
        RunError: It could not have begun in so many.
    """
    launch, use = plan.launch, load_job(plan.job).use
    changes = [Change(f"launch.{key}", getattr(launch, key)) for key in ("processes", "nodes", "shard")]
    if use.backend == "auto":
        changes += [Change(f"use.{step.stage}", step.plugin) for step in plan.steps if step.stage in _TRAINING]
    try:
        make_plan(folder.job_file(PluginKeys(catalogue), changes), catalogue, machine, plan.facts)
    except (PlanError, JobError) as error:
        why = (
            "; ".join(each.message for each in error.problems)
            if isinstance(error, JobError)
            else error.why or error.what
        )
        number = f"{launch.world_size} process{'es' * (launch.world_size != 1)}"
        do = "go on with as many as before (--processes), or start a new run"
        raise RunError(f"the run cannot go on in {number}", why, do) from error


def refuse_changes(folder: RunFolder, changes: Sequence[Change]) -> None:
    """Say why a run does not go on with other keys, and what does. Raises :class:`RunError` if there are any.

    More steps are another schedule of the learning rate from the first step on, so a run with more of them is not the
    run that it would have been; what a finished one left can be trained on from.
    """
    if not changes:
        return
    plan, trained = folder.plan(), folder.trained()
    job, what = settle(load_job(plan.job), plan.decisions), f"{folder.path} cannot go on with other keys"
    if trained is None:
        why = "it goes on as it began: its learning rate and the order of its rows are those of its job"
        raise RunError(what, why, f"`forge resume {folder.path}` goes on with it; `forge run` begins another")
    schedule = job.train.options.get("lr_scheduler_type", "its schedule")
    why = f"it has ended, and its learning rate with it ({schedule}): with more steps it would have been another run"
    source = load_job(plan.job).folder / Path(plan.source).name
    key = f"adapter.from={folder.path}" if trained.kind == "adapter" else f"model.id={folder.path / trained.weights}"
    told = " ".join(f"--set {change}" for change in changes)
    raise RunError(what, why, f"train on from what it left: forge run {source} --set {key} {told}")


def check_unchanged(folder: RunFolder, plan: Plan, catalogue: Catalogue) -> None:
    """Refuse to resume what is no longer the same run, and name the difference. Raises :class:`RunError`."""
    stored = load_job(plan.job)
    given = folder.path / "job.toml"
    file = folder.job_file(PluginKeys(catalogue))
    if file.job.digest() != plan.job_digest:
        changed = differences(stored.meaning(), file.job.meaning())
        named = {*plan.named, *file.named}
        # What nobody wrote is a default that has changed since: the run keeps the one that it began with.
        written = [said for key, said in changed.items() if _is_named(key, named)]
        if written or not changed:
            raise RunError(
                f"{given} is not the job that this run began with",
                "; ".join(written) or "its meaning has changed",
                "undo the change, or start a new run",
            )
    facts = describe_model(catalogue, stored.model.id, plan.facts.revision or stored.model.revision, stored.folder)
    if facts.digest and plan.facts.digest and facts.digest != plan.facts.digest:
        raise RunError(
            f"the base model {stored.model.id} has changed",
            f"its digest was {plan.facts.digest[:12]} and is {facts.digest[:12]}",
            "restore it, or start a new run",
        )
    seen = ((name, altered(stored.path(name), before)) for name, before in (folder.inputs() or {}).items())
    if changed_files := [f"{name} {how}" for name, how in seen if how]:
        raise RunError(
            "files that this run began with have changed",
            "; ".join(changed_files),
            "restore them, or start a new run",
        )


def tell_of_changes(folder: RunFolder, catalogue: Catalogue, show: Show) -> None:
    """Warn of what a job says by now and the run does not heed: its own copy, if it is trained, and the file itself."""
    plan = folder.plan()
    stored, copy = load_job(plan.job), folder.path / "job.toml"
    for note in _changed_code(plan, stored):
        show(Warned(note, "`forge run` begins a run with it"))
    trained = folder.trained() is not None  # else another copy is refused
    for path in dict.fromkeys([stored.folder / Path(plan.source).name, *([copy] if trained else [])]):
        try:
            file = folder.job_file(PluginKeys(catalogue), path=path)
        except (ForgeError, OSError, ValueError) as error:  # gone, or half written: then nobody relies on it yet
            if path.exists():
                show(Warned(f"{path} cannot be read by now, and the run goes by its own copy: {error}"))
            continue
        named = {*plan.named, *file.named}
        changed = differences(stored.tables(), file.job.tables())
        told = [said for key, said in changed.items() if _is_named(key, named)]
        if told:
            what = f"{path} has changed since this run began, and the run does not heed it: {'; '.join(told)}"
            after = "; `forge eval` and `forge export` take --set" if trained else ""
            show(Warned(what, f"`forge run {path}` begins a run with it{after}"))


def _changed_code(plan: Plan, stored: Job) -> Iterator[str]:
    """Tell which of the job's own plugins are other files by now: the run goes by its copies."""
    for text in stored.use.plugins:
        path = stored.path(text)
        with suppress(OSError):  # it was moved, which is why there are copies
            if sha256(path.read_bytes()).hexdigest() != plan.code.get(path.stem):
                yield f"{path} has changed since this run began, and the run does not heed it"


def _is_named(key: str, named: AbstractSet[str]) -> bool:
    """Tell whether a key, or the table around it or within it, was written by the user."""
    return any(key == each or key.startswith(f"{each}.") or each.startswith(f"{key}.") for each in named)


def _moved(plan: Plan, machine: Machine) -> Iterator[str]:
    """Tell what differs between the machine that the run began on and this one, where the numbers may part."""
    for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        before, now = plan.machine.versions.get(name), machine.versions.get(name)
        if before != now:
            yield f"{name} was {before} and is {now}: the numbers may differ from an uninterrupted run"
    if plan.machine.usable_kinds != machine.usable_kinds:
        kinds = [", ".join(sorted(m.usable_kinds)) or "none" for m in (plan.machine, machine)]
        yield f"accelerators were {kinds[0]} and are {kinds[1]}: the numbers may differ from an uninterrupted run"
