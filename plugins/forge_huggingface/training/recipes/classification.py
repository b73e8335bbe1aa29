"""Classifiers, and models that give a number for a text: transformers' own trainer and losses."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy
from transformers import Trainer, TrainingArguments

from forge_huggingface.heads.labels import Labels
from forge_huggingface.heads.scores import scores
from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.weighing import Weighed

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run
    from forge_huggingface.training.recipes.weighing import Batch


FALLING = frozenset({"mse", "eval_mse"})
"""What is better the smaller it is; transformers takes all but losses for better the greater they are."""


class Classifier(Weighed, Trainer):  # type: ignore[misc]  # transformers is Any to mypy: see pyproject
    """transformers' trainer, whose losses and held-out numbers do not depend on how the rows are batched."""

    labels: Labels

    def __init__(self, *arguments: Any, labels: Labels, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.labels = labels
        self.model_accepts_loss_kwargs = True  # so that the rows of a step are counted for every model
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._uncached = {"use_cache": False} if "use_cache" in signature(inner.forward).parameters else {}

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss, in the training as this batch's part of the mean over all rows of the step.

        These models take ``num_items_in_batch`` and give the mean over the batch all the same (transformers 5.17 and
        5.23). The trainer would add the means up as if each were a part, and the gradient of a step would grow with its
        number of batches.
        """
        inputs = {**inputs, **self._uncached}
        if num_items_in_batch is None or self.label_smoother is not None:  # which does it right
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, outputs = super().compute_loss(model, dict(inputs), return_outputs=True)
        share = inputs["labels"].ne(-100).sum() / num_items_in_batch
        if self.args.average_tokens_across_devices:  # they are counted in all processes, of which the mean is taken
            share = share * self.accelerator.num_processes
        return (loss * share, outputs) if return_outputs else loss * share

    def prediction_step(
        self,
        model: Any,
        inputs: Any,
        prediction_loss_only: bool,  # noqa: ARG002 - the trainer's signature
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Return the loss alone; what the model said is kept by :meth:`told`."""
        loss, _, _ = super().prediction_step(model, inputs, False, ignore_keys)
        return loss, None, None

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count rows."""
        return {"rows": len(inputs["labels"])}

    def told(self, logits: Any, labels: Any) -> Any:
        """Return the logits and the targets of a batch."""
        first = logits[0] if isinstance(logits, tuple) else logits  # BART gives what its encoder says too
        return first.float().cpu().numpy(), labels.cpu().numpy()

    def of_all(self, batches: list[Batch]) -> Mapping[str, float]:
        """Return accuracy and F1, or the squared error and the correlation."""
        logits, targets = (numpy.concatenate(each) for each in zip(*(batch.told for batch in batches), strict=True))
        return scores(self.labels, logits, targets)


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what a classifier needs: the padding token, by which a decoder tells where a text ends."""
    loaded.model.config.get_text_config().pad_token_id = data.processor.pad_token_id
    values: dict[str, Any] = {"label_names": ["labels"]}
    if job.train.options.get("metric_for_best_model") in FALLING:
        values["greater_is_better"] = False
    labels = Labels.of(data.summary)
    return Recipe(config=TrainingArguments, trainer=Classifier, arguments={"labels": labels}, values=values)
