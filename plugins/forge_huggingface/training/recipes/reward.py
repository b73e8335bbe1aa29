"""Reward models: a language model with one number for its head, trained to give the better answer the higher one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl import RewardConfig, RewardTrainer

from forge_huggingface.training.recipe import Recipe

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what a reward model needs: rows of several lengths are told apart by the padding token."""
    tokenizer = getattr(data.processor, "tokenizer", data.processor)
    loaded.model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return Recipe(config=RewardConfig, trainer=RewardTrainer)
