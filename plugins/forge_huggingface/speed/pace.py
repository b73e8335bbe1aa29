"""How long a training takes with a backend: start-up, and the work of its steps by how fast the device does it.

What a device reaches is a share of its arithmetic limit, by backend, size of the model and gradient checkpointing. The
shares below were measured on one H200 (docs/speed.md); what runs on the machine itself took comes before them. It is
taken as a factor on the shares, so that a backend that has not run here is compared on equal terms with one that has.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge.api import Pace, peak_flops
from forge.disk import speeds
from forge_huggingface.rules.placement import device
from forge_huggingface.speed.flops import flops
from forge_huggingface.speed.rows import Uncounted, extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api import Job, Machine, ModelFacts
    from forge.disk.speeds import Timed


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a backend is where nothing has been measured.

    Attributes:
        start: Seconds until the end of the first step, less a later step.
        small: The share of the arithmetic limit that it reaches with models of about a billion parameters, without and
            with gradient checkpointing.
        large: The same with about eight billion.
    """

    start: float
    small: tuple[float, float]
    large: tuple[float, float]

    def share(self, parameters: int, *, checkpointing: bool) -> float:
        """Return the share for a model: between the two sizes by the logarithm, and beyond them as at the nearer one.

        >>> Rates(20, (0.2, 0.1), (0.4, 0.3)).share(8_000_000_000, checkpointing=True)
        0.3
        """
        place = min(1.0, max(0.0, math.log(max(parameters, 1) / 1e9) / math.log(8)))
        small, large = self.small[checkpointing], self.large[checkpointing]
        return small + place * (large - small)


RATES: Mapping[str, Rates] = {
    "huggingface": Rates(25.0, (0.45, 0.31), (0.53, 0.40)),
    "unsloth-text": Rates(34.0, (0.44, 0.30), (0.48, 0.37)),
}
"""By the plugin that loads the model. At 8 B, Unsloth's share without checkpointing is that of its own script, and
transformers' with it is three quarters of theirs without: one more forward pass beside one forward and two backward."""

PLAIN = Rates(20.0, (0.22, 0.18), (0.36, 0.26))
"""The same for transformers with ``kernels = "none"``."""

NOMINAL = 1e11
"""What stands for the limit of a core of a processor, of which none is known: it only carries measured factors."""


def pace(machine: Machine, job: Job, facts: ModelFacts) -> Pace:
    """Return how long a training takes with transformers and peft."""
    return pace_of("huggingface", machine, job, facts)


def pace_of(backend: str, machine: Machine, job: Job, facts: ModelFacts) -> Pace:
    """Return how long a training takes with a backend; what is not known of it says why.

    Args:
        backend: The plugin that loads the model, one of :data:`RATES`.
        machine: The machine.
        job: The job, with what it leaves open.
        facts: What is known about the model.
    """
    known, limit = speeds.read(machine), limit_of(machine, job)
    plain = backend == "huggingface" and job.train.options.get("kernels") == "none"
    rates = PLAIN if plain else RATES[backend]
    runs = [run for run in known.runs if run.backend in RATES]
    mine = [run for run in runs if run.backend == backend]
    start = statistics.median(run.start for run in mine) if mine else rates.start * _slower_to_start(runs)
    unknown = functools.partial(Pace, start=start, step=None, steps=None, how="estimated")
    if limit is None and not any(run.flops for run in runs):
        return unknown(why="nothing is known of how fast this device is (`forge doctor --measure` finds out)")
    work = flops(job, facts)
    if work is None or facts.parameters is None:
        return unknown(why="the operations of this model and method are not counted")
    try:
        rows = extent(job, facts.context if job.model.max_seq_length == -1 else job.model.max_seq_length)
    except Uncounted as uncounted:
        return unknown(why=str(uncounted))
    again = job.train.options.get("gradient_checkpointing") not in {None, False, "auto"}
    limit = limit or NOMINAL * machine.cores
    factor = _factor(mine, facts.parameters, limit)
    others = [
        found for name in RATES if (found := _factor([r for r in runs if r.backend == name], facts.parameters, limit))
    ]
    times = factor or (statistics.median(others) if others else 1.0)
    step = work.of(rows.tokens, rows.length) / (limit * rates.share(facts.parameters, checkpointing=again) * times)
    return Pace(start=start, step=step, steps=rows.steps, how="measured" if factor else "estimated")


def limit_of(machine: Machine, job: Job) -> float | None:
    """Return the operations a second that the job's device could do at best; None if that is unknown."""
    kind = device(machine, job)
    return peak_flops(next((card for card in machine.accelerators if card.kind == kind), None))


def _factor(runs: Sequence[Timed], parameters: int, limit: float) -> float | None:
    """Return how many times as fast a backend is as its share says, from its runs of the size that is nearest."""
    able = [(abs(math.log(run.parameters / parameters)), run) for run in runs if run.flops]
    nearest = min((far for far, _ in able), default=0.0)
    found = [
        run.flops / (limit * RATES[run.backend].share(run.parameters, checkpointing=run.checkpointing))
        for far, run in able
        if run.flops and far <= nearest + 0.1
    ]
    return statistics.median(found) if found else None


def _slower_to_start(runs: Sequence[Timed]) -> float:
    """Return how many times as long as usual the other backends took to start."""
    return statistics.median([run.start / RATES[run.backend].start for run in runs] or [1.0])
