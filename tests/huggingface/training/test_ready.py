"""What a trainer does at each step, and need not walk through the whole model for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import DistributedType

from forge_huggingface.training.steady import Steady


class Plain:
    """A trainer's step, as far as it tells the model to train."""

    def training_step(self, model: torch.nn.Module, inputs: Any) -> torch.Tensor:  # noqa: ARG002 - the trainer's
        model.train()
        return torch.zeros(())


class Counting(torch.nn.Module):
    """A model that counts how often it is walked through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Dropout(0.5)
        self.walks = 0

    def train(self, mode: bool = True) -> Counting:
        self.walks += 1
        return super().train(mode)


class Trainer(Steady, Plain):
    accelerator = SimpleNamespace(distributed_type=DistributedType.NO)


def test_a_model_whose_parts_all_train_is_not_walked_through() -> None:
    model, trainer = Counting(), Trainer()
    trainer.training_step(model, {})
    assert (model.walks, "train" in vars(model)) == (0, False)


def test_a_part_that_was_switched_off_is_switched_on_again() -> None:
    model, trainer = Counting(), Trainer()
    model.inner.eval()
    trainer.training_step(model, {})
    assert (model.walks, model.inner.training) == (1, True)


def test_rows_end_to_end_are_counted_each() -> None:
    trainer = Trainer()
    ids = torch.zeros((1, 64), dtype=torch.long)
    trainer.training_step(Counting(), {"input_ids": ids, "cu_seq_lens_q": torch.tensor([0, 30, 64])})
    trainer.training_step(Counting(), {"input_ids": torch.zeros((4, 8), dtype=torch.long)})
    assert (trainer.filled, trainer.sequences) == (96, 6)


def test_gradients_are_dropped_without_a_walk_through_the_model() -> None:
    model, trainer = Counting(), Trainer()
    model.weighing = torch.nn.Linear(2, 2)
    trainer.training_step(model, {})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert "zero_grad" in vars(model)
    model.zero_grad()
    assert [parameter.grad for parameter in model.parameters()] == [None, None]


def test_gradients_that_are_views_of_what_is_summed_up_are_set_to_0_there() -> None:
    model, trainer = Counting(), Trainer()
    model.weighing = torch.nn.Linear(2, 2)
    trainer.training_step(model, {})
    bucket = torch.ones(6)
    for parameter, part in zip(model.parameters(), bucket.split([4, 2]), strict=True):
        parameter.grad = part.view_as(parameter)
    model.zero_grad(set_to_none=False)
    assert bucket.tolist() == [0.0] * 6
