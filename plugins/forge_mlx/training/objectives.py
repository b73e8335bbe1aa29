"""What each method makes smaller, and what it measures beside it.

An objective takes rows as forge has made them. Each of its numbers is a sum over what a step counts, tokens or pairs,
so that a token weighs the same in whatever batch it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import mlx.core as mx
from mlx import nn

from forge_mlx.lora import switch
from forge_mlx.training.batches import IGNORED, Apart, Batch, batch_of
from forge_mlx.training.optimizers import Arrays
from forge_mlx.training.state import take, trained

if TYPE_CHECKING:
    from forge.api import Job


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch, ready to be computed on.

    Attributes:
        batch: The tokens.
        count: What its sums are divided by: tokens in the loss, or pairs.
        known: What is computed once and not learned.
    """

    batch: Batch
    count: int
    known: Mapping[str, mx.array]


class Objective(Protocol):
    """What a method makes smaller."""

    def prepare(self, module: Any, rows: Sequence[Mapping[str, Any]]) -> Prepared:
        """Return a batch of rows."""
        ...

    def sums(self, module: Any, prepared: Prepared) -> tuple[mx.array, dict[str, mx.array]]:
        """Return the sum of the batch's losses, in nats, and the sums of what is measured beside it."""
        ...


def log_likelihoods(module: Any, batch: Batch) -> mx.array:
    """Return for each row the sum of the logarithms of its asked tokens' probabilities; shape (rows,).

    Logits are made where a token is asked only: they are the largest thing of all in a step.
    """
    with picking(module, batch):
        apart = None if batch.apart is None else [Apart(batch.apart)] * len(module.layers)
        logits = module(batch.ids, cache=apart)[0].astype(mx.float32)
    found = -nn.losses.cross_entropy(logits, batch.labels)
    return mx.where(batch.rows[None] == mx.arange(len(batch.ids))[:, None], found[None], 0.0).sum(axis=1)


@contextmanager
def picking(module: Any, batch: Batch) -> Iterator[None]:
    """Have a model make logits of the batch's asked places alone, as one row of them.

    The part that all of mlx-lm's models call ``model`` ends before the output layer, which takes each place by itself.
    """
    inner = module.model
    kind = type(inner)

    def call(layer: Any, *arguments: Any, **named: Any) -> Any:
        return kind.__call__(layer, *arguments, **named)[mx.maximum(batch.rows, 0), batch.places][None]

    inner.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    try:
        yield
    finally:
        inner.__class__ = kind


class Likelihood:
    """``sft``: the tokens of the answers are to be likely."""

    def prepare(self, module: Any, rows: Sequence[Mapping[str, Any]]) -> Prepared:  # noqa: ARG002 - the protocol's
        """Return a batch of rows with ``input_ids`` and ``labels``."""
        batch = batch_of(rows)
        return Prepared(batch, batch.counted, {})

    def sums(self, module: Any, prepared: Prepared) -> tuple[mx.array, dict[str, mx.array]]:
        """Return the sum of the tokens' losses."""
        return -log_likelihoods(module, prepared.batch).sum(), {}


@dataclass(frozen=True, slots=True)
class Preference:
    """``dpo``: the better answer is to gain more on the untrained model than the other one (arXiv 2305.18290).

    Attributes:
        beta: How far the trained model may go from the untrained one; the smaller, the further.
        untrained: The trained weights as they were before the first step; None with a new adapter, without which the
            model is the untrained one.
    """

    beta: float
    untrained: Arrays | None = None

    def prepare(self, module: Any, rows: Sequence[Mapping[str, Any]]) -> Prepared:
        """Return a batch of pairs, the better answers first, with what the untrained model says of them."""
        batch = batch_of([_joined(row, side) for side in ("chosen_ids", "rejected_ids") for row in rows])
        now = trained(module) if self.untrained else {}
        if self.untrained is None:
            switch(module, on=False)
        take(module, self.untrained or {})
        before = log_likelihoods(module, batch)
        mx.eval(before)
        switch(module, on=True)
        take(module, now)
        return Prepared(batch, len(rows), {"before": before})

    def sums(self, module: Any, prepared: Prepared) -> tuple[mx.array, dict[str, mx.array]]:
        """Return the sum of the pairs' losses, and of their rewards."""
        gains = self.beta * (log_likelihoods(module, prepared.batch) - prepared.known["before"])
        better, worse = gains[: prepared.count], gains[prepared.count :]
        margins = better - worse
        return -nn.log_sigmoid(margins).sum(), {
            "rewards/chosen": better.sum(),
            "rewards/rejected": worse.sum(),
            "rewards/margins": margins.sum(),
            "rewards/accuracies": (margins > 0).sum(),
        }


def _joined(row: Mapping[str, Any], side: str) -> dict[str, list[int]]:
    prompt, answer = list(row["prompt_ids"]), list(row[side])
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def objective_of(job: Job, module: Any) -> Objective:
    """Return what a job's method makes smaller; ``module`` is not trained yet."""
    if job.train.method == "dpo":
        untrained = trained(module) if job.adapter.type == "none" or job.adapter.from_ else None
        return Preference(job.train.options["beta"], untrained)
    return Likelihood()
