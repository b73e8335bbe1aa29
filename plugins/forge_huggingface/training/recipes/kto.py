"""Kahneman-Tversky optimization (arXiv 2402.01306), on rows that forge has tokenised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from trl import KTOConfig, KTOTrainer
from trl.trainer.utils import use_adapter

from forge_huggingface.data.ratings import foreign, two_answers
from forge_huggingface.model.start import REFERENCE
from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.reference import reference
from forge_huggingface.training.recipes.weighing import Batch, Weighed

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class FinishedRatings(Weighed, KTOTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, which tokenises whatever it gets, given rows that are tokens already (trl 1.14.2 and 1.16).

    Its loss measures each row by how far the model has moved, which a batch estimates of its rows. In an evaluation the
    estimate is that of all held-out rows, so that a row's loss does not depend on which rows are beside it.
    """

    units: ClassVar[Mapping[str, str]] = {
        "entropy": "tokens",
        "logits/chosen": "chosen tokens",
        "logits/rejected": "rejected tokens",
        **{f"{what}/{side}": side for what in ("rewards", "logps") for side in ("chosen", "rejected")},
    }

    _others: Sequence[Any] = ()
    _moved: float | None = None
    _of_reference = False

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *_: Any) -> Any:  # noqa: ARG002
        if not self.calculate_KL:
            return dataset
        self._others = self._others or two_answers(dataset["completion_ids"])  # of the training rows, which come first
        return mixed(dataset, args.per_device_train_batch_size, self._others)

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count rows and tokens, of good and bad ones."""
        good, mask = torch.as_tensor(inputs["label"], dtype=torch.bool), inputs["completion_mask"][:, 1:].sum(1).cpu()
        tokens = {"chosen tokens": int(mask[good.cpu()].sum()), "rejected tokens": int(mask[~good.cpu()].sum())}
        sides = {"chosen": int(good.sum()), "rejected": int((~good).sum())}
        return {"rows": len(good), "tokens": int(mask.sum()), **sides, **tokens}

    def names(self, batches: list[Batch]) -> list[str]:
        """Return what is measured, with the margin, though no batch may have had good and bad rows."""
        found = super().names(batches)
        both = {"rewards/chosen", "rewards/rejected"} <= {*found}
        return list(dict.fromkeys([*found, *(["rewards/margins"] if both else [])]))

    def held_out(self, name: str, batches: list[Batch]) -> float:
        """Return a number of all batches; the margin is that between all good and all bad rows."""
        if name == "rewards/margins":
            return self.held_out("rewards/chosen", batches) - self.held_out("rewards/rejected", batches)
        return super().held_out(name, batches)

    def evaluation_loop(self, *arguments: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """Estimate first, of all rows, how far the model has moved."""
        if self.calculate_KL:
            self.model.eval()
            found = [self._distances(self._prepare_inputs(inputs)) for inputs in arguments[0]]
            if self._spread:
                found = [each for of_one in self.run.group.gather(found[: self._mine]) for each in of_one]
            self._moved = float(torch.cat(found).mean())
        try:
            return super().evaluation_loop(*arguments, metric_key_prefix=metric_key_prefix, **options)
        finally:
            self._moved = None

    def _distances(self, batch: Any) -> Any:
        """Return how much likelier the foreign answers of a batch are than the reference finds them."""
        with torch.no_grad(), self.compute_loss_context_manager():
            now = super()._compute_kl_logps(self.model, batch)
            if self.precompute_ref_logps:
                before = batch["ref_KL_logps"]
            elif self.ref_model is not None:
                before = super()._compute_kl_logps(self.ref_model, batch)
            else:
                model = self.accelerator.unwrap_model(self.model)
                with use_adapter(model, REFERENCE if REFERENCE in model.peft_config else None):
                    before = super()._compute_kl_logps(self.model, batch)
        return (now - before).float().cpu()

    def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
        """In an evaluation, give what makes the mean distance of the batch that of all rows.

        The trainer asks for the model's first, then, unless they are in the batch, for the reference's.
        """
        if self._moved is None:
            return super()._compute_kl_logps(model, batch)
        if self.precompute_ref_logps:
            return batch["ref_KL_logps"] + self._moved
        self._of_reference, of_reference = not self._of_reference, self._of_reference
        return torch.full((len(batch["label"]),), 0.0 if of_reference else self._moved, device=self.args.device)


def mixed(dataset: Any, size: int, others: Sequence[Any]) -> Any:
    """Return rows that each have the answer of another row beside their own, as ``KL_completion_ids``.

    From the pairs of a prompt and a foreign answer the loss estimates how far the model has moved (section 4.1 of the
    paper). As in TRL (``trl/trainer/kto_trainer.py``, ``add_kl_completion_ids``) the foreign answer comes from the same
    group of ``size`` rows, those of a training batch; :func:`foreign` says which one it is.
    """

    def add(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        answers = rows["completion_ids"]
        groups = (answers[at : at + size] for at in range(0, len(answers), size))
        return {"KL_completion_ids": [each for group in groups for each in foreign(group, others)]}

    # Beside the rows' own file, from which they are mapped: what is larger than memory needs no more of it.
    files = [Path(file["filename"]) for file in dataset.cache_files]
    place = {"cache_file_name": str(files[0].with_suffix(".mixed.arrow"))} if files else {"keep_in_memory": True}
    return dataset.map(
        add,
        batched=True,
        batch_size=size * max(1, 1000 // size),
        features=type(dataset.features)({**dataset.features, "KL_completion_ids": dataset.features["completion_ids"]}),
        load_from_cache_file=False,
        **place,
    )


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what Kahneman-Tversky optimization needs: a reference."""
    return Recipe(config=KTOConfig, trainer=FinishedRatings, arguments={"ref_model": reference(job, run)})
