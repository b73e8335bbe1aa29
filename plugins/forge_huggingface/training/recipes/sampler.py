"""The order of the prompts, such that a run which goes on in its second epoch has that of its second epoch.

TRL's sampler for online methods shuffles with a generator of its own, whose state is in no checkpoint: after a resume
it begins with the first epoch's order again (trl 1.14.2 and 1.16). transformers tells a sampler the epoch if it asks.
"""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's sampler, with the order that it has in each epoch of a run that is never interrupted."""

    @classmethod
    def like(cls, other: RepeatSampler) -> EpochSampler:
        """Return one that gives what another gives."""
        return cls(
            data_source=other.data_source,
            mini_repeat_count=other.mini_repeat_count,
            batch_size=other.batch_size,
            repeat_count=other.repeat_count,
            shuffle=other.shuffle,
            seed=other.seed,
        )

    def set_epoch(self, epoch: int) -> None:
        """Have the generator where ``epoch`` shuffles leave it."""
        if not self.shuffle:
            return
        self.generator.manual_seed(self.seed)
        for _ in range(epoch):
            torch.randperm(self.num_samples, generator=self.generator)


class InOrder:
    """Put before a trainer of an online method: its prompts come in the same order after a resume as without one."""

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        return EpochSampler.like(super()._get_train_sampler(dataset))  # type: ignore[misc]  # the trainer behind it
