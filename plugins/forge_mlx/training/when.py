"""At which steps a training logs, evaluates and saves, by the keys of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class When:
    """Says what is due after a step, counted from 1.

    Attributes:
        options: The keys of ``[train]``.
        steps: Those of the training.
        epoch: Those of an epoch.
    """

    options: Mapping[str, Any]
    steps: int
    epoch: int

    def logs(self, step: int) -> bool:
        """Whether a step is logged; the last one is."""
        if step == self.steps or (step == 1 and self.options["logging_first_step"]):
            return True
        return self._is_due("logging", step)

    def evaluates(self, step: int) -> bool:
        """Whether held-out rows are looked at."""
        delay, strategy = self.options["eval_delay"] or 0, self._strategy("eval")
        passed = step / self.epoch if strategy == "epoch" else step
        return passed >= delay and self._is_due("eval", step)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is made; the last step has one unless there are none at all."""
        return self._is_due("save", step) or (step == self.steps and self._strategy("save") != "no")

    def _strategy(self, what: str) -> str:
        value = self.options[f"{what}_strategy"]
        return str(getattr(value, "value", value) or "no")

    def _is_due(self, what: str, step: int) -> bool:
        strategy = self._strategy(what)
        if strategy == "epoch":
            return step % self.epoch == 0 or step == self.steps
        if strategy == "no":
            return False
        every = self.options[f"{what}_steps"] or self.options["logging_steps"]
        every = math.ceil(every * self.steps) if every < 1 else int(every)
        return step % every == 0
