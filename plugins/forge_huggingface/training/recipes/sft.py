"""Supervised fine-tuning: TRL's SFTTrainer on finished rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl import SFTConfig, SFTTrainer

from forge_huggingface.training.recipe import Recipe

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what supervised fine-tuning needs: nothing more."""
    return Recipe(config=SFTConfig, trainer=SFTTrainer)
