"""Which rows a step trains on, in the order in which transformers' trainer takes them, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np

IGNORED = -100
"""The label of a token that is not in the loss."""

GRAIN = 32
"""Rows are filled up to a multiple of so many tokens, so that MLX has few shapes to make its kernels ready for."""


@dataclass(frozen=True)
class Schedule:
    """Says for each step which rows it trains on. It keeps nothing, so a run goes on anywhere as if it never stopped.

    Attributes:
        lengths: How many tokens each row has.
        options: The keys of ``[train]``.
    """

    lengths: Sequence[int]
    options: Mapping[str, Any]
    _orders: dict[int, list[int]] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """How many rows a batch has."""
        return int(self.options["per_device_train_batch_size"])

    @property
    def rows_of_a_step(self) -> int:
        """How many rows a step has; the last one of an epoch may have fewer."""
        return self.size * int(self.options["gradient_accumulation_steps"])

    @cached_property
    def steps_of_an_epoch(self) -> int:
        """How many steps pass over all rows."""
        return math.ceil(len(self.lengths) / self.rows_of_a_step)

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        asked = self.options["max_steps"] or -1
        return asked if asked > 0 else math.ceil(self.options["num_train_epochs"] * self.steps_of_an_epoch)

    def order(self, epoch: int) -> list[int]:
        """Return the rows in the order of an epoch, counted from 0."""
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = self._shuffled(epoch)
        return self._orders[epoch]

    def _shuffled(self, epoch: int) -> list[int]:
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        strategy = str(
            getattr(self.options["train_sampling_strategy"], "value", self.options["train_sampling_strategy"])
        )
        if strategy == "sequential":
            return list(range(len(self.lengths)))
        seed = self.options["seed"] if self.options["data_seed"] is None else self.options["data_seed"]
        dice = torch.Generator().manual_seed(seed + epoch)
        if strategy == "group_by_length":
            grouped: list[int] = get_length_grouped_indices(list(self.lengths), self.rows_of_a_step, generator=dice)
            return grouped
        found: list[int] = torch.randperm(len(self.lengths), generator=dice).tolist()
        return found

    def batches(self, step: int) -> list[list[int]]:
        """Return the indices of the rows in each batch of a step, counted from 1."""
        epoch, place = divmod(step - 1, self.steps_of_an_epoch)
        rows = self.order(epoch)[place * self.rows_of_a_step : (place + 1) * self.rows_of_a_step]
        return [rows[start : start + self.size] for start in range(0, len(rows), self.size)]


def rates(options: Mapping[str, Any], steps: int) -> Any:
    """Return the function from a step, counted from 0, to the share of the learning rate that it has.

    It is transformers' own, which is told nothing of the model.
    """
    import torch
    from transformers import get_scheduler

    warmup = options["warmup_steps"] or 0
    warmup = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    nothing = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options["learning_rate"])
    schedule = get_scheduler(
        options["lr_scheduler_type"],
        optimizer=nothing,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs=dict(options["lr_scheduler_kwargs"] or {}),
    )
    return schedule.lr_lambdas[0]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens, filled up at the right: no token sees what is behind it, so what fills them up does nothing.

    Attributes:
        ids: Shape (rows, tokens).
        rows: Of each place at which a token is asked, its row; what fills the places up has the row -1.
        places: Where in its row it is.
        labels: The token that is asked there.
        counted: How many are asked.
        tokens: How many tokens the rows have.
        apart: For packs, which of its rows each token is of; shape (rows, tokens), -1 for what fills up. None where
            each row is one.
    """

    ids: mx.array
    rows: mx.array
    places: mx.array
    labels: mx.array
    counted: int
    tokens: int
    apart: mx.array | None = None


def batch_of(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Return rows with ``input_ids`` and ``labels`` as a batch, or packs, which have ``seq_lengths`` too.

    A row's first token is predicted by none.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    ids: Any = np.zeros((len(rows), _rounded(max(lengths))), dtype=np.int32)
    labels: Any = np.full(ids.shape, IGNORED, dtype=np.int32)
    packed = rows[0].get("seq_lengths") is not None
    apart: Any = np.full(ids.shape, -1, dtype=np.int32)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        ids[index, :length] = row["input_ids"]
        labels[index, : length - 1] = row["labels"][1:]
        if packed:
            inside = np.asarray(row["seq_lengths"])
            apart[index, :length] = np.repeat(np.arange(len(inside)), inside)
            labels[index, np.cumsum(inside) - 1] = IGNORED  # the next token there is another row's first one
    asked = np.nonzero(labels != IGNORED)
    counted = len(asked[0])
    more = _rounded(counted) - counted
    columns = (
        np.pad(each, (0, more), constant_values=value)
        for each, value in ((asked[0], -1), (asked[1], 0), (labels[asked], 0))
    )
    found = [mx.array(each.astype(np.int32)) for each in columns]
    places = mx.array(apart) if packed else None
    return Batch(mx.array(ids), found[0], found[1], found[2], counted, sum(lengths), places)


class Apart:
    """Keeps the rows of packs apart: where mlx-lm's models look for a cache, they find the mask of their attention.

    The positions of a pack run on. What these models make of them depends on how far two tokens of one row lie apart,
    and on nothing else (:data:`forge_mlx.families.COUNTING` names the one that differs).

    Args:
        rows: Which row each token is of; shape (packs, tokens).
    """

    offset = 0
    """The position of the first token."""

    def __init__(self, rows: mx.array) -> None:
        self.rows = rows

    def make_mask(self, count: int, *, window_size: int | None = None, return_array: bool = True) -> mx.array:  # noqa: ARG002
        """Return which tokens see which; shape (packs, 1, tokens, tokens)."""
        places = mx.arange(count)
        distance = places[:, None] - places[None]
        seen = distance >= 0 if window_size is None else (distance >= 0) & (distance < window_size)
        return (seen & (self.rows[:, :, None] == self.rows[:, None, :]))[:, None]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Return keys and values as they are: nothing was there before."""
        return keys, values


def _rounded(count: int) -> int:
    return max(1, -(-count // GRAIN)) * GRAIN


def split(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield so many rows at a time."""
    yield from (rows[start : start + size] for start in range(0, len(rows), size))
