"""LOAD: a vision model through ``unsloth.FastVisionModel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Data, Loaded
from forge_unsloth import PATCHED, session

if TYPE_CHECKING:
    from forge.api import Job, Run


def load(job: Job, run: Run, data: Data) -> Loaded:  # noqa: ARG001 - the rows matter to other loaders
    """Load the base model. Raises as :func:`forge_unsloth.session.load` does."""
    unsloth = session.begin()
    model = session.load(unsloth.FastVisionModel, job, run)
    return Loaded(model=model, traits=frozenset({"hf-model", PATCHED}), trainer=session.loss(job))
