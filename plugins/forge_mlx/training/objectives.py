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
from forge_mlx.training.preferences import LOSSES, Pairs
from forge_mlx.training.state import take, trained

if TYPE_CHECKING:
    from forge.api import Job


ACCURACY = "mean_token_accuracy"
"""TRL's name of the share of asked tokens that are the likeliest to the model; under ``dpo``, of better answers."""


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


def log_likelihoods(module: Any, batch: Batch) -> tuple[mx.array, mx.array]:
    """Return for each row the sum of its asked tokens' log-probabilities, and how many it has right; shape (rows,).

    Logits are made where a token is asked only: they are the largest thing of all in a step.
    """
    with picking(module, batch):
        apart = None if batch.apart is None else [Apart(batch.apart)] * len(module.layers)
        logits = module(batch.ids, cache=apart)[0].astype(mx.float32)
    found = -nn.losses.cross_entropy(logits, batch.labels)
    right = logits.argmax(axis=-1) == batch.labels
    mine = batch.rows[None] == mx.arange(len(batch.ids))[:, None]
    return mx.where(mine, found[None], 0.0).sum(axis=1), (mine & right[None]).sum(axis=1)


def asked(batch: Batch) -> mx.array:
    """Return how many tokens are asked of each row; shape (rows,)."""
    return (batch.rows[None] == mx.arange(len(batch.ids))[:, None]).sum(axis=1)


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
        """Return the sum of the tokens' losses, and how many are right."""
        likely, right = log_likelihoods(module, prepared.batch)
        return -likely.sum(), {ACCURACY: right.sum()}


@dataclass(frozen=True, slots=True)
class Preference:
    """``dpo``: the better answer is to gain more on the untrained model than the other one (arXiv 2305.18290).

    Attributes:
        options: The keys of ``[train]``: the losses, their weights and what they go by.
        untrained: The trained weights as they were before the first step; None with a new adapter, without which the
            model is the untrained one.
    """

    options: Mapping[str, Any]
    untrained: Arrays | None = None

    def prepare(self, module: Any, rows: Sequence[Mapping[str, Any]]) -> Prepared:
        """Return a batch of pairs, the better answers first, with what the untrained model says of them."""
        batch = batch_of([_joined(row, side) for side in ("chosen_ids", "rejected_ids") for row in rows])
        now = trained(module) if self.untrained else {}
        if self.untrained is None:
            switch(module, on=False)
        take(module, self.untrained or {})
        before, _ = log_likelihoods(module, batch)
        mx.eval(before)
        switch(module, on=True)
        take(module, now)
        return Prepared(batch, len(rows), {"before": before, "tokens": asked(batch)})

    def sums(self, module: Any, prepared: Prepared) -> tuple[mx.array, dict[str, mx.array]]:
        """Return the sum of the pairs' losses, and of their rewards."""
        likely, right = log_likelihoods(module, prepared.batch)
        count, options, tokens = prepared.count, self.options, mx.maximum(prepared.known["tokens"], 1)
        gains = likely - prepared.known["before"]
        pairs = Pairs(
            gains[:count],
            gains[count:],
            likely[:count] - likely[count:],
            likely[:count],
            tokens[:count],
            tokens[count:],
            options["beta"],
            options["label_smoothing"],
            options["discopop_tau"],
        )
        named = [options["loss_type"]] if isinstance(options["loss_type"], str) else options["loss_type"]
        shares = options["loss_weights"] or [1.0] * len(named)
        loss = sum((share * LOSSES[name](pairs) for name, share in zip(named, shares, strict=True)), mx.array(0.0))
        better, worse, margins = pairs.beta * pairs.better, pairs.beta * pairs.worse, pairs.margin
        return loss.sum(), {
            "rewards/chosen": better.sum(),
            "rewards/rejected": worse.sum(),
            "rewards/margins": margins.sum(),
            "rewards/accuracies": (margins > 0).sum(),
            ACCURACY: count * right[:count].sum() / tokens[:count].sum(),
        }


def _joined(row: Mapping[str, Any], side: str) -> dict[str, list[int]]:
    prompt, answer = list(row["prompt_ids"]), list(row[side])
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def objective_of(job: Job, module: Any) -> Objective:
    """Return what a job's method makes smaller; ``module`` is not trained yet."""
    if job.train.method == "dpo":
        untrained = trained(module) if job.adapter.type == "none" or job.adapter.from_ else None
        return Preference(job.train.options, untrained)
    return Likelihood()
