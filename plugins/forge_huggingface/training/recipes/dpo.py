"""Direct preference optimization (arXiv 2305.18290) and its losses, on rows that forge has tokenised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl import DPOConfig, DPOTrainer

from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.reference import reference

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class FinishedPairs(DPOTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, which tokenises whatever it gets, given rows that are tokens already (trl 1.14.2 and 1.16)."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what direct preference optimization needs: a reference."""
    return Recipe(config=DPOConfig, trainer=FinishedPairs, arguments={"ref_model": reference(job, run)})
