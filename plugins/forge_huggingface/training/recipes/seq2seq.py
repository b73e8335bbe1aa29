"""Supervised fine-tuning of encoder-decoder models (T5, BART): transformers' own trainer, for TRL has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from forge_huggingface.methods import METHODS, Method
from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.weighing import Tokenwise
from forge_huggingface.training.train import train_by

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run, Trained


SFT = METHODS["sft"]
SEQ2SEQ = Method(
    SFT.name, SFT.config, "forge_huggingface.training.recipes.seq2seq:recipe", "seq2seq", "encoder-decoder"
)


class TokenwiseSeq2Seq(Tokenwise, Seq2SeqTrainer):  # type: ignore[misc]  # transformers is Any to mypy: see pyproject
    """transformers' trainer, whose losses do not depend on how the rows are batched."""

    ahead = 0  # the decoder's input is the labels, moved by one

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model_accepts_loss_kwargs = True  # so that the labels of a step are counted for every model

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss, in the training as this batch's part of the mean over all labels of the step.

        These models take ``num_items_in_batch`` and give the mean over the batch all the same (T5, BART and most others
        in transformers 5.17 and 5.23), which the trainer would add up as if it were a part.
        """
        if num_items_in_batch is None or self.label_smoother is not None:  # which does it right
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        share = (inputs["labels"] != -100).sum() / num_items_in_batch
        found = super().compute_loss(model, inputs, return_outputs)
        return (found[0] * share, found[1]) if return_outputs else found * share


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train an encoder-decoder model and save the weights.

    Raises what :func:`forge_huggingface.training.train.train_by` raises.
    """
    return train_by(SEQ2SEQ, job, run, loaded, data)


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what an encoder-decoder model needs: the arguments of SFT that are not about TRL's losses."""
    return Recipe(config=Seq2SeqTrainingArguments, trainer=TokenwiseSeq2Seq)
