"""How many groups of answers teach something: those whose answers differ in reward."""

from __future__ import annotations

from typing import Any

import torch

SAME = 1e-8
"""Rewards that differ by less are the same, as they are to TRL."""


class Grouped:
    """Put before a trainer of an online method: ``frac_reward_zero_std`` is the share of groups that teach nothing.

    TRL's (1.14 and 1.16) takes groups without any reward for groups that differ, and with ``scale_rewards = "batch"``
    all groups of a batch as one.
    """

    _alike = 0.0

    def _calculate_rewards(self, *arguments: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*arguments)  # type: ignore[misc]  # the trainer behind it
        trainer: Any = self
        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        apart = getattr(trainer, "multi_objective_aggregation", None) == "normalize_then_sum"
        self._alike = alike(rewards, trainer.reward_weights.to(rewards.device), size, apart=apart)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        trainer: Any = self
        trainer._metrics["train" if trainer.model.training else "eval"]["frac_reward_zero_std"][-1] = self._alike  # noqa: SLF001
        return output


def alike(rewards: torch.Tensor, weights: torch.Tensor, size: int, *, apart: bool) -> float:
    """Return the share of groups whose answers do not differ in reward, or have none.

    Args:
        rewards: Of each answer by each function, (answers, functions); NaN where a function gave none.
        weights: Of the functions.
        size: The answers of a group.
        apart: Whether each function is compared by itself, and not their sum.
    """
    weighed = rewards * weights
    if not apart:
        nothing = weighed.isnan().all(1, keepdim=True)
        weighed = weighed.nansum(1, keepdim=True).masked_fill(nothing, torch.nan)
    groups = weighed.view(-1, size, weighed.shape[1])
    missing = groups.isnan()
    spread = groups.masked_fill(missing, -torch.inf).amax(1) - groups.masked_fill(missing, torch.inf).amin(1)
    return 1 - float((spread > SAME).any(1).float().mean())
