"""Direct preference optimization (arXiv 2305.18290) and its losses, on rows that forge has tokenised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl import DPOConfig, DPOTrainer

from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.reference import reference
from forge_huggingface.training.recipes.weighing import Batch, Pairwise, mean

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class FinishedPairs(Pairwise, DPOTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, which tokenises whatever it gets, given rows that are tokens already (trl 1.14.2 and 1.16)."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def held_out_loss(self, batches: list[Batch]) -> float:
        """Return the mean over pairs; of its part ``"sft"``, that over the tokens of the better answers."""
        kinds = zip(self.loss_types, self.loss_weights, strict=True)
        share = sum(weight for kind, weight in kinds if kind == "sft")
        # What a batch has of it: the probabilities of whole answers are summed up over tokens.
        parts = [
            -each.measured["logps/chosen"] * each.counts["rows"] / (each.counts["chosen"] or 1) for each in batches
        ]
        pairs = [(each.loss - share * part, each.counts["rows"]) for each, part in zip(batches, parts, strict=True)]
        tokens = [(part, each.counts["chosen"]) for each, part in zip(batches, parts, strict=True)]
        return mean(pairs) + (share * mean(tokens) if share else 0.0)


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what direct preference optimization needs: a reference."""
    return Recipe(config=DPOConfig, trainer=FinishedPairs, arguments={"ref_model": reference(job, run)})
