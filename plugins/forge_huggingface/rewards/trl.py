"""Rewards in the form that TRL's online trainers take: ``reward_funcs`` and ``reward_weights``.

TRL calls a reward function with ``prompts``, ``completions``, ``completion_ids``, every further column, and
``trainer_state``, ``log_extra`` and ``log_metric``; awaits those whose ``__call__`` is a coroutine function together;
and takes a list with a float or ``None`` for each completion (``_calculate_rewards`` of the trainers in TRL 1.14.2 and
1.16). It has no place for feedback, so each function here keeps what its last call returned.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from forge_huggingface.functions.signature import GIVEN
from forge_huggingface.rewards.score import is_finite
from forge_huggingface.rows import put_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge_huggingface.rewards.reward import Reward
    from forge_huggingface.rewards.score import Score


class RewardFunction:
    """A reward as TRL calls it.

    Attributes:
        reward: The reward.
        last: What its last call returned, one score for each of this process's completions, in their order.
    """

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.last: list[Score] = []
        self.__name__ = reward.name  # TRL's name for it in metrics and tables

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **given: Any) -> list[float | None]:
        """Score completions."""
        columns, context = _split(given)
        return self._keep(self.reward.score(prompts, completions, columns, context), context)

    def _keep(self, scores: list[Score], context: dict[str, Any]) -> list[float | None]:
        self.last = scores
        if log := context.get("log_metric"):
            shared = set.intersection(*(set(score.extra) for score in scores)) if scores else set()
            for key in sorted(shared):
                values = [score.extra[key] for score in scores]
                if all(map(is_finite, values)):
                    log(f"rewards/{self.reward.name}/{key}", statistics.fmean(values))
        return [score.score for score in scores]


class AsyncRewardFunction(RewardFunction):
    """A reward whose function is async: TRL runs all of those at the same time."""

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **given: Any) -> list[float | None]:  # type: ignore[override]
        """Score completions."""
        columns, context = _split(given)
        return self._keep(await self.reward.ascore(prompts, completions, columns, context), context)


def functions(rewards: Sequence[Reward], *, blocking: bool = False) -> list[RewardFunction]:
    """Return the rewards as TRL's ``reward_funcs``.

    Args:
        rewards: The rewards.
        blocking: Make plain functions of async ones too, for trainers that await none (TRL 1.16's SDPOTrainer).
    """
    return [
        AsyncRewardFunction(reward) if reward.is_async and not blocking else RewardFunction(reward)
        for reward in rewards
    ]


def weights(rewards: Sequence[Reward]) -> list[float]:
    """Return the rewards' weights as TRL's ``reward_weights``."""
    return [reward.weight for reward in rewards]


def _split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what TRL gives into columns of the rows and what comes from the trainer."""
    columns = {name: value for name, value in given.items() if name not in GIVEN}
    return put_back(columns), {name: value for name, value in given.items() if name in GIVEN}
