"""Learning rates by group: LoRA+'s for the matrices B, and those that a job gives to parameters by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import ModelError

if TYPE_CHECKING:
    from forge.api import Job

_B = re.compile(r"\.lora_B\.")
"""The second matrix of an adapter of a linear layer, as peft names it."""


@dataclass(frozen=True)
class Rates:
    """Which parameters are trained at another rate than ``learning_rate``.

    Attributes:
        base: The rate of all others.
        ratio: How many times as fast LoRA's matrices B are trained (LoRA+, Hayou et al., arXiv 2402.12354).
        by_name: Regular expressions, searched for in the parameters' names, and their rates; the first that fits holds,
            also over ``ratio``.
    """

    base: float
    ratio: float | None = None
    by_name: Mapping[str, float] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """Return the rate of a parameter.

        >>> Rates(1e-4, 16, {"embed_tokens": 1e-5}).rate("layers.0.q_proj.lora_B.default.weight")
        0.0016
        """
        for pattern, rate in self.by_name.items():
            if re.search(pattern, name):
                return rate
        return self.base * self.ratio if self.ratio is not None and _B.search(name) else self.base

    def part(self, optimizer: Any, model: Any) -> dict[float, int]:
        """Part an optimizer's groups by rate, before its first step, and return how many values each rate trains.

        Decay and all other settings of a group stay its parts'.

        Raises:
            ModelError: A pattern fits no parameter that is trained.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for pattern in self.by_name:
            if not any(re.search(pattern, name) for name in names.values()):
                raise ModelError(
                    f'[train] learning_rates: "{pattern}" fits no parameter that is trained',
                    f"{len(names)} are, as {next(iter(names.values()))}",
                    "[adapter] modules_to_save trains whole modules beside the adapter",
                )
        counts: dict[float, int] = {}
        groups = []
        for group in optimizer.param_groups:
            parts: dict[float, list[Any]] = {}
            for parameter in group["params"]:
                rate = self.rate(names[id(parameter)])
                parts.setdefault(rate, []).append(parameter)
                counts[rate] = counts.get(rate, 0) + parameter.numel()
            groups += [{**group, "lr": rate, "params": found} for rate, found in parts.items()]
        # The common rate first: a log names the first group's.
        groups.sort(key=lambda group: group["lr"] != self.base)
        optimizer.param_groups[:] = groups
        return counts


def rates_of(job: Job) -> Rates | None:
    """Return the rates that a job asks for beside ``learning_rate``; None if it asks for none."""
    options = job.train.options
    ratio, by_name = options.get("loraplus_lr_ratio"), options.get("learning_rates") or {}
    if ratio is None and not by_name:
        return None
    return Rates(options["learning_rate"], ratio, by_name)
