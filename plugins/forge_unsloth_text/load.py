"""LOAD: a text model through ``unsloth.FastLanguageModel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Data, Loaded
from forge_unsloth import PATCHED, session
from forge_unsloth.rules import options_of

if TYPE_CHECKING:
    from forge.api import Job, Run


def load(job: Job, run: Run, data: Data) -> Loaded:  # noqa: ARG001 - the rows matter to other loaders
    """Load the base model. Raises as :func:`forge_unsloth.session.load` does."""
    unsloth = session.begin()
    options = options_of(job, "unsloth-text")
    extra = {}
    if options.get("fast_inference"):
        extra = {
            "fast_inference": True,
            "gpu_memory_utilization": options["gpu_memory_utilization"],
            "max_lora_rank": job.adapter.r,
        }
    model = session.load(unsloth.FastLanguageModel, job, run, **extra)
    return Loaded(model=model, traits=frozenset({"hf-model", PATCHED}), trainer=session.loss(job))
