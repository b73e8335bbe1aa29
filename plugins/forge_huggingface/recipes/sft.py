"""Supervised fine-tuning: TRL's SFTTrainer on finished rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl import SFTConfig, SFTTrainer

from forge_huggingface.train import Recipe

if TYPE_CHECKING:
    from forge.api import Data, Loaded
    from forge.job import Job
    from forge.run import RunHandle


def recipe(job: Job, run: RunHandle, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what supervised fine-tuning needs: nothing more."""
    return Recipe(config=SFTConfig, trainer=SFTTrainer)
