"""How much memory a job will take, by part, from files alone: for ``forge plan``, before anything is downloaded.

Light on purpose: no torch, no transformers, a few hundred multiplications.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from forge_huggingface.memory.kernels import TRANSFORMERS, Kernels
from forge_huggingface.memory.levers import levers_of, mend
from forge_huggingface.memory.parts import bare

if TYPE_CHECKING:
    from forge.api import Estimate, Job, Lever, Machine, ModelFacts


def estimate(machine: Machine, job: Job, facts: ModelFacts, *, longest: int | None = None) -> Estimate | None:
    """Return what training takes with transformers and peft; None if nothing is known of the model or the method.

    Args:
        machine: The machine.
        job: The job, its open values decided.
        facts: What is known about the model.
        longest: Tokens of the longest row; without it, rows fill ``max_seq_length``.
    """
    return forecast(machine, job, facts, TRANSFORMERS, longest=longest)


def forecast(
    machine: Machine, job: Job, facts: ModelFacts, kernels: Kernels, *, longest: int | None = None
) -> Estimate | None:
    """Return what training takes with a backend's kernels; see :func:`estimate`."""
    found = bare(machine, job, facts, kernels, longest)
    if found is None or found.process is None:
        return found
    levers = sorted(levers_of(machine, job, facts, kernels, longest, frozenset()), key=lambda lever: -lever.saves)
    cure: tuple[Lever, ...] = ()
    cured: int | None = None
    if found.fits is False:
        cure, cured = mend(machine, job, facts, kernels, longest)
    return replace(found, levers=tuple(levers), cure=cure, cured=cured)
