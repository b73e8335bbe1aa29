"""How long a training takes under Unsloth, which takes longer to start and less a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_huggingface.speed.pace import pace_of

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts, Pace


def pace(machine: Machine, job: Job, facts: ModelFacts) -> Pace:
    """Return how long a training takes; see :func:`forge_huggingface.speed.pace.pace_of`."""
    return pace_of("unsloth-text", machine, job, facts)
