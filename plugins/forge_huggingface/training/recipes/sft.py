"""Supervised fine-tuning: TRL's SFTTrainer on finished rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl import SFTConfig, SFTTrainer

from forge_huggingface.training.recipe import Recipe

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what supervised fine-tuning needs: of a stream of packs, batches that nobody takes apart."""
    # accelerate cuts every tensor of a streamed batch to its number of rows, and the borders of packed rows are no row.
    whole = {"accelerator_config": {"dispatch_batches": False}} if job.data.streaming and job.data.packing else {}
    return Recipe(config=SFTConfig, trainer=SFTTrainer, values=whole)
