"""Preferences without a reference model: ORPO (arXiv 2403.07691), CPO (arXiv 2401.08417) and SimPO (arXiv 2405.14734).

TRL keeps these trainers under ``trl.experimental``. They tokenise in their constructor, row by row, and here have
nothing left to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from forge_huggingface.training.recipe import Recipe

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class _Finished:
    """A trainer whose rows are tokens already."""

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:  # noqa: ARG002 - TRL's
        return feature


class FinishedORPO(_Finished, ORPOTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer on rows that are tokens already."""


class FinishedCPO(_Finished, CPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""


def orpo(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what odds ratio preference optimization needs."""
    return Recipe(config=ORPOConfig, trainer=FinishedORPO, values=_length(data))


def cpo(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001
    """Return what contrastive preference optimization needs; with ``loss_type = "simpo"``, SimPO."""
    return Recipe(config=CPOConfig, trainer=FinishedCPO, values=_length(data))


def _length(data: Data) -> dict[str, Any]:
    # Nothing is cut by it any more; without it the trainer warns that it takes 512.
    return {"max_length": int(data.summary.get("max_seq_length") or 512)}
