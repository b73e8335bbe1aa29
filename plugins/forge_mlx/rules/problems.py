"""What a job says that contradicts itself, whatever the machine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_huggingface.rules.data import layout_problems
from forge_huggingface.rules.training import train_problems

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Problem

_MEASURED = {
    "sft": ("loss", "mean_token_accuracy"),
    "dpo": ("loss", "mean_token_accuracy", "rewards/*"),
}


def problems(job: Job) -> Iterable[Problem]:
    """Yield contradictions between the keys of ``[train]`` and the rest of the job."""
    if job.train.method == "dpo":
        yield from layout_problems(job, "pairs")
    yield from train_problems(job, measures=_MEASURED[job.train.method])
