"""What memory decides: which layers are recomputed, and in how many rows at a time an optimizer step is made.

Both change nothing of what is trained, only how long it takes. So of all that fits into the free memory the fastest is
taken, and what does not fit after all, as the probe finds out, is taken one step down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from forge.api import Decision, Problem
from forge.text.units import counted, size
from forge_huggingface.arguments.contradictions import USUAL, divisors
from forge_huggingface.memory.kernels import TRANSFORMERS, Kernels
from forge_huggingface.memory.levers import with_changes
from forge_huggingface.memory.parts import bare
from forge_huggingface.methods import splits
from forge_huggingface.rules.placement import device

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts

AUTO = "auto"
CHECKPOINTING = "gradient_checkpointing"
LAYERS = "gradient_checkpointing_kwargs"
ROWS = "per_device_train_batch_size"
STEPS = "gradient_accumulation_steps"

USABLE = 0.85
"""The share of a GPU's free memory that an estimate may fill."""

USABLE_MAIN = 0.5
"""The same of main memory, where an estimate is less exact and the system kills what takes too much."""

EVERY = (8, 4, 3, 2)
"""Where some layers are recomputed, it is every n-th; the fewest that are enough."""

RECOMPUTED = 0.38
"""What recomputing all layers adds to a step's time, measured at 1B and 8B on an H200 (docs/memory.md)."""

BEGIN = 2**40
"""Parameters times tokens that a GPU gets through in the time in which a pass begins, whatever its size: about 15 ms,
measured at 1B on an H200."""

BEGIN_MOST = 8192
"""The most tokens of that time: models of less than 130M are not as much faster as they are smaller."""

BEGIN_MAIN = 64
"""The tokens of that time on a CPU, whatever the model."""

WORTH = 1.05
"""A larger batch that saves less of the time than this is not worth its memory."""

STEP_DOWN = 0.3
"""What does not fit is followed by what takes at least this share less of all that can be saved."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to make an optimizer step.

    Attributes:
        every: Every how many layers one is recomputed; 0 for none.
        rows: Rows of a batch.
        steps: Batches of a step.
        takes: Bytes of the process; None if that is unknown.
    """

    every: int
    rows: int
    steps: int
    takes: int | None = None

    def changes(self) -> tuple[tuple[str, Any], ...]:
        """Return it as keys and values of a job."""
        return (*self.layers(), *self.batches())

    def layers(self) -> tuple[tuple[str, Any], ...]:
        """Return what it says of checkpointing."""
        which = {"every_n_layers": self.every} if self.every > 1 else None
        return ((f"train.{CHECKPOINTING}", self.every > 0), (f"train.{LAYERS}", which))

    def batches(self) -> tuple[tuple[str, Any], ...]:
        """Return what it says of batches."""
        return ((f"train.{ROWS}", self.rows), (f"train.{STEPS}", self.steps))

    def slowness(self, tokens: float, begin: float) -> float:
        """Return how long a token takes, in the time that one takes of a large batch without recomputing.

        Args:
            tokens: Tokens of a row.
            begin: Tokens in whose time a pass begins.
        """
        recomputed = RECOMPUTED / self.every if self.every else 0.0
        return (1 + recomputed) * (1 + begin / (self.rows * max(tokens, 1)))


def fitted(
    machine: Machine,
    job: Job,
    facts: ModelFacts,
    *,
    asked: Job,
    named: frozenset[str],
    rows: Mapping[str, Any] | None = None,
    failed: bool = False,
    kernels: Kernels | None,
    some: bool = True,
) -> Iterator[Decision | Problem]:
    """Yield what memory decides where the job leaves it open; see :class:`forge.api.Offer`, ``fit``.

    Args:
        machine: The machine.
        job: The job, all else decided; with ``failed`` what ran out of memory.
        facts: What is known about the model.
        asked: The job as it was written.
        named: The keys that the user wrote.
        rows: What is known of the rows: ``longest``, and ``tokens`` of all ``rows``.
        failed: Whether what the job says was too much; then nothing is yielded if nothing takes less.
        kernels: How the backend computes; None where nobody knows what its layers take.
        some: Whether it can recompute a part of the layers.
    """
    options, processes = asked.train.options, job.launch.world_size
    layers = options.get(CHECKPOINTING) == AUTO
    if layers and options.get(LAYERS):
        if not failed:
            yield Decision(f"train.{CHECKPOINTING}", True, f"the job says in {LAYERS} how")
        layers = False
    pairs = batches(asked, named, failed=failed, processes=processes)
    if not pairs:
        if not failed:
            yield unshared(asked, named, processes)
        return
    derived = bool(options.get("batch_size")) or options.get(ROWS) == AUTO or (processes > 1 and is_open(named))
    if not layers and not derived and not failed:
        return
    here = now(job)
    shares = _shares(facts, some=some) if layers else (here.every,)
    rungs = list(_rungs(machine, job, facts, kernels, _longest(rows), shares, pairs))
    slowness = _pace(machine, job, facts, rows)
    if failed:
        taken, why = _down(rungs, here, slowness), f"{_said(here)} did not fit"
        if taken is None:
            return
    else:
        taken, why = _best(rungs, *free(machine, job), slowness)
    if layers:
        yield from _of_layers(taken, why, failed=failed, sure=rows is not None)
    if derived or (failed and len(pairs) > 1):
        best = f"the largest that is still faster, {why}" if len(pairs) > 1 else None
        for decision in _of_batches(taken, why if failed else best):
            if decision.key not in named or options.get(decision.key.removeprefix("train.")) == AUTO:
                yield decision


fit = partial(fitted, kernels=TRANSFORMERS)
"""The same with transformers and peft."""

blind = partial(fitted, kernels=None)
"""The same for a backend of which nobody knows what its layers take."""


def now(job: Job) -> Rung:
    """Return how a job, nothing left open, makes a step."""
    options = job.train.options
    every = int((options.get(LAYERS) or {}).get("every_n_layers") or 1) if options.get(CHECKPOINTING) else 0
    rows = options.get(ROWS)
    return Rung(every, rows if isinstance(rows, int) else USUAL, int(options.get(STEPS) or 1))


def batches(asked: Job, named: frozenset[str], *, failed: bool, processes: int = 1) -> list[tuple[int, int]]:
    """Return in which ways a step of the job may be made: rows of a batch, and batches of a step.

    All of them are the same training. Where the rows of a batch are compared with each other, or weigh by what else is
    in it, there is one way. Several processes share the batches of a step, each as many as every other; where nothing
    names the rows of a batch, there may be fewer of them for it.
    """
    pairs = _batches(asked, named, failed=failed or (processes > 1 and is_open(named)))
    return [pair for pair in pairs if not pair[1] % processes]


def is_open(named: frozenset[str]) -> bool:
    """Whether the job leaves open in how many batches a step is made."""
    return not {f"train.{ROWS}", f"train.{STEPS}"} & named


def unshared(asked: Job, named: frozenset[str], processes: int) -> Problem:
    """Say that processes cannot share the batches of a step evenly, and with which numbers they could."""
    rows, steps = _batches(asked, named, failed=True)[-1]
    whole = rows * steps
    batches_ = f"in {steps} batch{'es' * (steps != 1)} of {rows}" if f"train.{ROWS}" in named or steps > 1 else "in all"
    what = f"a step has {whole} row{'s' * (whole != 1)} {batches_}, which {processes} processes cannot share evenly"
    unit = processes * (rows if f"train.{ROWS}" in named else 1)
    sizes = dict.fromkeys(each * unit for each in (whole // unit, -(-whole // unit)) if each)
    say = [f"batch_size = {' or '.join(map(str, sizes))}"]
    fewer = [each for each in divisors(whole) if not whole // each % processes]
    if fewer and splits(asked.train.method, asked.train.options):
        say.insert(0, f"{ROWS} = {fewer[-1]}")
    say.append(f"[launch] processes = {max(each for each in divisors(steps) if each < processes)}")
    mine = [key for key in ("launch.processes", f"train.{ROWS}", f"train.{STEPS}", "train.batch_size") if key in named]
    return Problem(mine[0] if mine else "launch.processes", what, f"write {', or '.join(say)}")


def _batches(asked: Job, named: frozenset[str], *, failed: bool) -> list[tuple[int, int]]:
    options = asked.train.options
    rows, steps, wanted = options.get(ROWS), int(options.get(STEPS) or 1), options.get("batch_size")
    fixed = rows != AUTO and f"train.{ROWS}" in named
    parted = f"train.{STEPS}" in named
    if wanted is None:
        usual = int(rows) if isinstance(rows, int) else USUAL
        pair = (usual, steps)
        if fixed or parted or (rows != AUTO and not failed):
            return [pair]
        wanted = usual * steps
    elif fixed and isinstance(rows, int):
        return [(rows, wanted // rows)]
    elif parted:
        return [(wanted // steps, steps)]
    else:
        pair = (wanted, 1)
    if not splits(asked.train.method, options) or str(options.get("optim", "")).endswith("layerwise"):
        return [pair]
    together = int(options.get("generation_batch_size") or 0)
    return [(each, wanted // each) for each in divisors(wanted) if not together % each]


def free(machine: Machine, job: Job) -> tuple[int | None, float]:
    """Return how many bytes of the device are free, as far as is known, and the share of them that may be filled."""
    kind = device(machine, job)
    card = next((card for card in machine.accelerators if card.kind == kind), None)
    if card is not None and kind != "mps":
        return (card.memory if card.free is None else card.free), USABLE
    return (machine.memory if machine.available is None else machine.available) or None, USABLE_MAIN


def _shares(facts: ModelFacts, *, some: bool) -> tuple[int, ...]:
    """Return every how many layers one may be recomputed."""
    most = facts.shape.layers if facts.shape else 0
    return (0, *(n for n in EVERY if some and n < most), 1)


def _longest(rows: Mapping[str, Any] | None) -> int | None:
    found = (rows or {}).get("longest")
    return int(found) if found else None


def _rungs(
    machine: Machine,
    job: Job,
    facts: ModelFacts,
    kernels: Kernels | None,
    longest: int | None,
    shares: tuple[int, ...],
    pairs: list[tuple[int, int]],
) -> Iterator[Rung]:
    """Yield all ways to make a step, each with what it takes."""
    for every in shares:
        for count, steps in pairs:
            rung = Rung(every, count, steps)
            found = bare(machine, with_changes(job, rung.changes()), facts, kernels, longest) if kernels else None
            yield replace(rung, takes=found.process if found and not found.partial else None)


def _pace(machine: Machine, job: Job, facts: ModelFacts, rows: Mapping[str, Any] | None) -> Callable[[Rung], float]:
    """Return what says how long a token takes; see :meth:`Rung.slowness`."""
    limit = facts.context if job.model.max_seq_length == -1 else job.model.max_seq_length
    length: float = _longest(rows) or limit or 1
    count, tokens = ((rows or {}).get(key) for key in ("rows", "tokens"))
    if count and tokens and not job.data.packing:
        length = tokens / count
    begin = min(BEGIN / (facts.parameters or 2**30), BEGIN_MOST) if device(machine, job) else BEGIN_MAIN
    return lambda rung: rung.slowness(length, begin)


def _of_layers(taken: Rung, why: str, *, failed: bool, sure: bool) -> Iterator[Decision]:
    """Yield what a rung says of layers; which of them only if it is known how long the rows are."""
    how = {0: "without it", 1: "with it"}.get(taken.every, f"with every_n_layers = {taken.every}")
    reasons = (why, why) if failed else (f"{how} {why}", "the fewest that are enough")
    for (key, value), reason in zip(taken.layers(), reasons, strict=True):
        if failed or sure or value is not None:
            yield Decision(key, value, reason)


def _of_batches(taken: Rung, why: str | None) -> Iterator[Decision]:
    """Yield what a rung says of batches."""
    whole = f"{taken.rows} x {taken.steps} = {taken.rows * taken.steps} rows of a step"
    for (key, value), reason in zip(taken.batches(), (why or whole, whole), strict=True):
        yield Decision(key, value, reason)


def _best(rungs: list[Rung], room: int | None, share: float, slowness: Any) -> tuple[Rung, str]:
    """Return the fastest that fits, and why it is taken; of those that are about as fast, the smallest batch."""
    sized = [(rung, rung.takes) for rung in rungs if rung.takes is not None]
    if len(sized) < len(rungs) or room is None:
        usual = [rung for rung in rungs if rung.rows <= USUAL] or rungs
        rung = max(usual, key=lambda rung: (rung.every == 1, rung.rows))
        what = "what the model takes" if room else "how much memory is free"
        return rung, f"it takes little, and {what} is not known beforehand"
    limit = share * room
    have = f"of {size(room)} free are taken"
    fits = [(rung, takes) for rung, takes in sized if takes <= limit]
    if not fits:
        rung, takes = min(sized, key=lambda each: (each[1], slowness(each[0])))
        return rung, f"about {size(takes)} {have}, more than {share:.0%}, and nothing takes less"
    fastest = min((rung for rung, _ in fits), key=slowness)
    like = [each for each in fits if each[0].every == fastest.every]
    rung, takes = min(
        (each for each in like if slowness(each[0]) <= WORTH * slowness(fastest)), key=lambda each: each[0].rows
    )
    why, within = f"about {size(takes)} {have}", f"within {share:.0%}"
    more = min(
        (
            other
            for each, other in sized
            if slowness(each) < slowness(rung) and other > limit and each.rows <= rung.rows
        ),
        default=None,
    )
    return rung, f"{why}, {within}" if more is None else f"{why}, {within}; what is faster takes {size(more)}"


def _down(rungs: list[Rung], here: Rung, slowness: Any) -> Rung | None:
    """Return the fastest of what takes clearly less than what did not fit, or else the least; None if nothing does."""
    known = {(rung.every, rung.rows): rung.takes for rung in rungs}
    took = known.get((here.every, here.rows))
    sized = [(rung, rung.takes) for rung in rungs if rung.takes is not None]
    if took is None or len(sized) < len(rungs):
        less = [rung for rung in rungs if _layers_less(rung, here) and rung.rows <= here.rows]
        less = [rung for rung in less if (rung.every, rung.rows) != (here.every, here.rows)]
        return max(less, key=lambda rung: (rung.rows, rung.every == 1), default=None)
    least = min(takes for _, takes in sized)
    enough = took - STEP_DOWN * (took - least)
    less = [rung for rung, takes in sized if takes <= enough and (takes < took or rung.rows < here.rows)]
    return min(less, key=slowness, default=None)


def _layers_less(rung: Rung, here: Rung) -> bool:
    """Whether no fewer layers are recomputed than before."""
    return (1 / rung.every if rung.every else 0) >= (1 / here.every if here.every else 0)


def _said(rung: Rung) -> str:
    which = {0: "without gradient checkpointing", 1: "with gradient checkpointing"}.get(
        rung.every, f"with gradient checkpointing, every_n_layers = {rung.every}"
    )
    return f"the longest batch of {counted(rung.rows, 'row')} {which}"
