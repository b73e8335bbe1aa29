"""What can be said about exports before training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from forge.api import Problem
from forge_huggingface.facts.lookup import NOT_LOGGED_IN, token
from forge_huggingface.rules.quantised import widens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts


NO_ADAPTER = "there is no adapter to export: its [adapter] type trains weights of the model itself"


def cannot_merge(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why an adapter could not be merged after training, or None."""
    if facts.quantized and not widens(machine, job, facts):
        return f"the base is stored in {facts.quantized}, and merging would round the adapter away; export the adapter"
    return None


def export_problems(job: Job) -> Iterable[Problem]:
    """Yield exports that cannot be."""
    for index, export in enumerate(job.export):
        if export.push_to_hub and not token() and not os.environ.get("FORGE_MACHINE"):  # else another one's login
            yield Problem(f"export.{index}.push_to_hub", *NOT_LOGGED_IN)
        if export.format == "adapter" and job.adapter.leaves_model:
            yield Problem(f"export.{index}.format", NO_ADAPTER, 'write format = "merged"')
