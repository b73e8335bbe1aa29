"""Preferences without a reference model: ORPO (arXiv 2403.07691), CPO (arXiv 2401.08417) and SimPO (arXiv 2405.14734).

TRL keeps these trainers under ``trl.experimental``. They tokenise in their constructor, row by row, and here have
nothing left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.weighing import Batch, Weighed, mean

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class _Finished(Weighed):
    """A trainer whose rows are tokens already.

    Its loss has two parts: what compares the answers of a pair, and the likelihood of the better answers' tokens.
    """

    units: ClassVar[Mapping[str, str]] = {
        "eval_nll_loss": "likely",
        "eval_logits/chosen": "chosen",
        "eval_logits/rejected": "rejected",
    }
    whole = False
    """Whether the likelihood is that of the prompt too."""

    _logits: tuple[float, float] = (0.0, 0.0)

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:  # noqa: ARG002 - TRL's
        return feature

    @property
    def share(self) -> float:
        """What the likelihood counts in the loss."""
        raise NotImplementedError

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count pairs, and tokens of the answers."""
        chosen, rejected = (int((inputs[f"{side}_labels"][:, 1:] != -100).sum()) for side in ("chosen", "rejected"))
        likely = int(inputs["chosen_attention_mask"][:, 1:].sum()) if self.whole else chosen
        return {"rows": len(inputs["chosen_labels"]), "chosen": chosen, "rejected": rejected, "likely": likely}

    def held_out_loss(self, batches: list[Batch]) -> float:
        """Return the sum of both parts, each a mean of its own."""
        likely = [(each.measured["eval_nll_loss"], each.counts["likely"]) for each in batches]
        rest = [
            (each.loss - self.share * part, each.counts["rows"])
            for each, (part, _) in zip(batches, likely, strict=True)
        ]
        return mean(rest) + (self.share * mean(likely) if self.share else 0.0)

    def concatenated_forward(self, model: Any, batch: Any) -> Any:
        """Note the mean logits of the answers' tokens; TRL's are of prompts and padding too."""
        found = super().concatenated_forward(model, batch)  # type: ignore[misc]  # the trainer behind it
        self._logits = tuple(  # type: ignore[assignment]
            of_answers(logits.detach(), batch[f"{side}_labels"])
            for side, logits in zip(("chosen", "rejected"), found[2:4], strict=True)
        )
        return found

    def get_batch_loss_metrics(self, model: Any, batch: Any, train_eval: str = "train") -> Any:
        """Return TRL's loss and measures, with these logits."""
        loss, metrics = super().get_batch_loss_metrics(model, batch, train_eval)  # type: ignore[misc]
        before = "eval_" if train_eval == "eval" else ""
        for side, value in zip(("chosen", "rejected"), self._logits, strict=True):
            metrics[f"{before}logits/{side}"] = value
        return loss, metrics


def of_answers(logits: Any, labels: Any) -> float:
    """Return the mean of the logits that predict the tokens of an answer, (rows, tokens - 1, words)."""
    known = labels[:, 1:] != -100
    each = logits[:, : known.shape[1]].mean(-1)
    known = known[:, : each.shape[1]].to(each.device)
    return float(each[known].mean()) if known.any() else 0.0


class FinishedORPO(_Finished, ORPOTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer on rows that are tokens already."""

    whole = True

    @property
    def share(self) -> float:
        """What the likelihood counts in the loss."""
        return 1.0


class FinishedCPO(_Finished, CPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""

    @property
    def share(self) -> float:
        """What the likelihood counts in the loss."""
        return float(self.cpo_alpha)


def orpo(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what odds ratio preference optimization needs."""
    return Recipe(config=ORPOConfig, trainer=FinishedORPO, values=_length(data))


def cpo(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001
    """Return what contrastive preference optimization needs; with ``loss_type = "simpo"``, SimPO."""
    return Recipe(config=CPOConfig, trainer=FinishedCPO, values=_length(data))


def _length(data: Data) -> dict[str, Any]:
    # Nothing is cut by it any more; without it the trainer warns that it takes 512.
    return {"max_length": int(data.summary.get("max_seq_length") or 512)}
