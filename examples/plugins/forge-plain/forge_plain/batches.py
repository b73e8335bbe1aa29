"""Which rows a step trains on, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from forge_plain.options import Options

IGNORED = -100
"""The label of a token that is not in the loss."""


@dataclass(frozen=True)
class Schedule:
    """Says for each step which rows it trains on. It keeps nothing, so a run goes on anywhere as if it never stopped.

    Attributes:
        count: How many rows there are.
        options: The job's keys.
    """

    count: int
    options: Options

    @property
    def rows_of_a_step(self) -> int:
        """How many rows a step has; the last one of an epoch may have fewer."""
        return self.options.per_device_train_batch_size * self.options.gradient_accumulation_steps

    @property
    def steps_of_an_epoch(self) -> int:
        """How many steps pass over all rows."""
        return math.ceil(self.count / self.rows_of_a_step)

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        if self.options.max_steps > 0:
            return self.options.max_steps
        return math.ceil(self.options.num_train_epochs * self.steps_of_an_epoch)

    def batches(self, step: int) -> Iterator[list[int]]:
        """Yield the indices of the rows in each batch of a step, counted from 1."""
        epoch, place = divmod(step - 1, self.steps_of_an_epoch)
        dice = torch.Generator().manual_seed(self.options.seed + epoch)
        order = torch.randperm(self.count, generator=dice)
        rows = order[place * self.rows_of_a_step : (place + 1) * self.rows_of_a_step].tolist()
        size = self.options.per_device_train_batch_size
        yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def rate(self, step: int) -> float:
        """Return the share of the learning rate that a step has, as transformers' schedules of these names."""
        kind, warm, done = self.options.lr_scheduler_type, self.options.warmup_steps, step - 1
        if kind == "constant":
            return 1.0
        if done < warm:
            return done / warm
        left = max(0.0, (self.steps - done) / max(1, self.steps - warm))
        return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}.get(kind, 1.0)


def batch_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Return rows of the layout `tokens` as tensors, filled up at the right.

    What fills them up is hidden by the mask and has no label, so the id that it has does not matter.
    """
    shape = len(rows), max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[index, :length] = torch.tensor(row["input_ids"])
        labels[index, :length] = torch.tensor(row["labels"])
        mask[index, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def counted(labels: torch.Tensor) -> int:
    """Return how many tokens of a batch are in the loss: no token predicts the first one of a row."""
    return int((labels[:, 1:] != IGNORED).sum())
