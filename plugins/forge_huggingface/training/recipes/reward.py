"""Reward models: a language model with one number for its head, trained to give the better answer the higher one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trl import RewardConfig, RewardTrainer

from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.weighing import Weighed

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class PairwiseReward(Weighed, RewardTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, whose held-out numbers do not depend on how the pairs are batched."""

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count pairs."""
        return {"rows": len(inputs["input_ids"]) // 2}


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what a reward model needs: rows of several lengths are told apart by the padding token."""
    tokenizer = getattr(data.processor, "tokenizer", data.processor)
    loaded.model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return Recipe(config=RewardConfig, trainer=PairwiseReward)
