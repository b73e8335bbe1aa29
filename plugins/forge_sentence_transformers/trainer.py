"""The trainers of sentence-transformers, held to what forge promises of every trainer.

Rows come in the same order after a resume as without one, checkpoints hold what was trained and nothing of the hub's,
and tokens are counted.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler

from forge.api import PluginError
from forge_huggingface.facts.safetensors import read_header
from forge_huggingface.training.recipe import Recipe
from forge_sentence_transformers.losses import loss_of
from forge_sentence_transformers.measuring import evaluator
from forge_sentence_transformers.shapes import RERANKER

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class Reshuffled(DefaultBatchSampler):  # type: ignore[misc]  # sentence-transformers is Any to mypy: see pyproject
    """sentence-transformers' batches, in the order that they have in each epoch of a run that is never interrupted.

    Its sampler draws each epoch's order from one generator, whose state is in no checkpoint (6.2).
    """

    def set_epoch(self, epoch: int) -> None:
        """Have the generator where ``epoch`` epochs leave it."""
        super().set_epoch(epoch)
        self.generator.manual_seed(self.seed)
        for _ in range(epoch):
            for _ in self.sampler:
                pass


class Texts:
    """Put before a trainer of sentence-transformers."""

    _tokens = 0
    _more: torch.Tensor | int = 0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model[0].register_forward_pre_hook(self._see)  # type: ignore[attr-defined]

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Write no card of sentence-transformers': it would ask the hub, and forge writes one."""

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **options: Any) -> Any:
        """Return what makes batches: forge's for the plain order."""
        found = super().get_batch_sampler(dataset, batch_size, drop_last, **options)  # type: ignore[misc]
        if type(found) is not DefaultBatchSampler:
            return found
        return Reshuffled(found.sampler, batch_size, drop_last, **options)

    def _see(self, _: Any, inputs: tuple[Any, ...]) -> None:
        """Count the tokens that the model is given in training, without a wait for the device."""
        if self.model.training and torch.is_grad_enabled():  # type: ignore[attr-defined]
            self._more = self._more + inputs[0]["attention_mask"].sum()

    @property
    def _total_train_tokens(self) -> int:
        self._tokens, self._more = self._tokens + int(self._more), 0
        return self._tokens

    @_total_train_tokens.setter
    def _total_train_tokens(self, tokens: int) -> None:
        self._tokens, self._more = tokens, 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the tokens so far, too."""
        if "loss" in logs:
            logs["num_tokens"] = self._total_train_tokens
        super().log(logs, start_time)  # type: ignore[misc]

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002 - the trainer's
        folder = Path(output_dir or self.args.output_dir)  # type: ignore[attr-defined]
        self.model.save_pretrained(str(folder), create_model_card=False)  # type: ignore[attr-defined]
        torch.save(self.args, folder / "training_args.bin")  # type: ignore[attr-defined]

    def check_written(self, folder: Path) -> None:
        """Compare what was written with what was trained. Raises :class:`PluginError`."""
        check_written(self.model, folder)  # type: ignore[attr-defined]


class EmbeddingTrainer(Texts, SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer of embedding models."""


class RerankerTrainer(Texts, CrossEncoderTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer of rerankers."""


def check_written(model: Any, folder: Path) -> None:
    """Compare the number of weights that were written with that of those that were trained.

    Raises:
        PluginError: Something that was trained was not written.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    files = sorted(folder.rglob("*.safetensors"))
    written = sum(math.prod(shape) for file in files for shape in read_header(file).shapes.values())
    if written < trained:
        why = f"{trained} numbers were trained, and {written} are in the files"
        raise PluginError("what was written is not what was trained", why, f"{folder} is kept; please report this")


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:
    """Return what the trainer needs: its loss, and what evaluates it."""
    options = job.train.options
    reranks = job.train.method == RERANKER
    held = next(iter(data.eval.values()), None)
    values: dict[str, Any] = {"batch_sampler": options["batch_sampler"], "prediction_loss_only": True}
    if options.get("prompts"):
        values["prompts"] = by_column(options["prompts"], data.train.column_names)
    return Recipe(
        config=CrossEncoderTrainingArguments if reranks else SentenceTransformerTrainingArguments,
        trainer=RerankerTrainer if reranks else EmbeddingTrainer,
        arguments={
            "loss": loss_of(job, loaded.model),
            "evaluator": None if held is None else evaluator(job, run, held),
        },
        values=values,
    )


def by_column(prompts: dict[str, str], columns: list[str]) -> dict[str, str]:
    """Return the prompt of each column: that of ``negative`` is for all negatives, and without it ``positive``'s is."""
    found = {}
    for column in columns:
        name = "negative" if column.startswith("negative") else column
        said = prompts.get(name, prompts.get("positive") if name == "negative" else None)
        if said is not None:
            found[column] = said
    return found
