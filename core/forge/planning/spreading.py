"""Over how many processes a training is spread, and whether each of them holds the whole model or a part of it.

What the job leaves open is tried: with all GPUs in sight first, then with fewer, until a plan can be made. Why not with
more is the reason that the plan gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.errors import JobError, PlanError, Problem
from forge.job.decisions import Decision, settle
from forge.planning.mistakes import refuse
from forge.text.units import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge.api.plan import Training
    from forge.job.job import Job
    from forge.job.read import JobFile
    from forge.machine.machine import Machine

    Make = Callable[[tuple[Decision, ...]], Training]


def spread(file: JobFile, machine: Machine, make: Make) -> Training:
    """Make the plan of a training for as many processes as can share it.

    Args:
        file: The job.
        machine: The machine; every node is one like it.
        make: Makes a plan with decisions on ``[launch]``.

    Raises:
        PlanError: The job can be served by no number of processes, or not by the one that it names.
        JobError: The same, where it is a mistake of the job.
    """
    refuse(file, list(_problems(file.job, machine)))
    launch, cards = file.job.launch, usable_cards(file.job, machine)
    if launch.processes != "auto":
        return _sharded(file.job, make, ())
    if cards < 2 or machine.platform == "win32":
        each = f"a node has {'one GPU' if cards else 'no GPU that is used'}, and one process uses it"
        return _sharded(file.job, make, (Decision("launch.processes", 1, each),) if launch.nodes > 1 else ())
    reason = f"{cards} GPUs are in sight"
    for count in range(cards, 0, -1):
        try:
            return _sharded(file.job, make, (Decision("launch.processes", count, reason),))
        except (PlanError, JobError) as error:
            if count == 1:  # then it is not the number of processes
                raise
            if count == cards:
                reason += f", and a process for each of them cannot be: {_why(error)}"
    raise AssertionError("one process is always tried")


def _problems(job: Job, machine: Machine) -> Iterator[Problem]:
    """Yield why the machine cannot run as many processes as the job names."""
    launch, cards = job.launch, usable_cards(job, machine)
    named = launch.processes if launch.processes != "auto" else 1
    if launch.world_size == 1:
        return
    where = "launch.processes" if named > 1 else "launch.nodes"
    if machine.platform == "win32":
        yield Problem(where, "forge trains in one process on Windows", "use WSL, or write 1")
    elif cards and named > cards:
        what = f"{cards} GPU{' is' if cards == 1 else 's are'} in sight, and each process uses one of its own"
        yield Problem(where, what, f'write {cards} or less, or "auto"')
    elif not cards and "mps" in machine.usable_kinds and not job.train.options.get("use_cpu"):
        yield Problem(where, "Apple's GPU is used by one process", "write 1, or [train] use_cpu = true")


def usable_cards(job: Job, machine: Machine) -> int:
    """Return how many GPUs the job may use."""
    if job.train.options.get("use_cpu"):
        return 0
    return sum(card.kind in machine.usable_kinds & {"cuda", "rocm"} for card in machine.accelerators)


def _sharded(job: Job, make: Make, decisions: tuple[Decision, ...]) -> Training:
    """Make a plan whose processes hold the whole model, or parts where it does not fit and the job leaves it open."""
    launch = settle(job, decisions).launch
    if launch.shard != "auto" or launch.world_size == 1:
        return make(decisions)
    whole = make((*decisions, Decision("launch.shard", "none", "each process holds the whole model")))
    found = whole.estimate
    if found is None or found.fits is not False or found.process is None or found.partial:
        return whole
    if not job.adapter.leaves_model:  # most of what an adapter's training takes is not sharded
        return whole
    takes = f"the whole model takes about {size(found.process)}, and {found.device} has {size(found.room)}"
    try:
        return make((*decisions, Decision("launch.shard", "full", takes)))
    except (PlanError, JobError) as error:
        return make((*decisions, Decision("launch.shard", "none", f"{takes}, but it cannot be sharded: {_why(error)}")))


def _why(error: PlanError | JobError) -> str:
    if isinstance(error, JobError):
        return "; ".join(problem.message for problem in error.problems)
    return error.why or error.what
