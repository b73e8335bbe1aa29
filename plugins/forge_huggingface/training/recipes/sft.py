"""Supervised fine-tuning: TRL's SFTTrainer on finished rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl import SFTConfig, SFTTrainer

from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.unhurried import Unhurried
from forge_huggingface.training.recipes.weighing import Tokenwise

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class TokenwiseSFT(Unhurried, Tokenwise, SFTTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, whose held-out loss does not depend on how the rows are batched, and who waits for no device."""


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what supervised fine-tuning needs: nothing more."""
    return Recipe(config=SFTConfig, trainer=TokenwiseSFT)
