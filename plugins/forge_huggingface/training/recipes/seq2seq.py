"""Supervised fine-tuning of encoder-decoder models (T5, BART): transformers' own trainer, for TRL has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """transformers' trainer, whose held-out loss does not depend on how the rows are batched."""

    ahead = 0  # the decoder's input is the labels, moved by one


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train an encoder-decoder model and save the weights.

    Raises what :func:`forge_huggingface.training.train.train_by` raises.
    """
    return train_by(SEQ2SEQ, job, run, loaded, data)


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what an encoder-decoder model needs: the arguments of SFT that are not about TRL's losses."""
    return Recipe(config=Seq2SeqTrainingArguments, trainer=TokenwiseSeq2Seq)
