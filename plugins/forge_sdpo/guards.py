"""What ends a run that learns nothing or unlearns what it had.

Both failures are silent in a loss curve: without demonstrations the loss is 0, and a collapsed model agrees with its
teacher. So they are told from rewards and counts. The state is in every checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from forge.api import ForgeError

BELOW = 0.5
"""The share of the best mean reward below which a run counts as collapsed."""


@dataclass(slots=True)
class Guards:
    """Watches the batches of rollouts.

    Attributes:
        teacher_patience: Batches without any teacher until the run is stopped; 0 for never.
        reward_patience: Batches whose mean reward is looked at; 0 for never.
        without: Batches without any teacher, in all.
        streak: The last of them, in a row.
        highest: The highest summed reward of any rollout so far.
        recent: The last batches' mean rewards.
        best: The best mean of ``reward_patience`` batches so far.
    """

    teacher_patience: int
    reward_patience: int
    without: int = 0
    streak: int = 0
    highest: float | None = None
    recent: deque[float] = field(default_factory=deque)
    best: float | None = None

    def batch(self, *, taught: int, rewards: list[float], threshold: float, feedback: int) -> None:
        """Take note of one batch of rollouts, of all processes.

        Args:
            taught: How many rollouts have a teacher.
            rewards: The summed rewards; NaN for those that could not be scored.
            threshold: The reward of a demonstration.
            feedback: How many rollouts got feedback, used or not.

        Raises:
            ForgeError: None has had a teacher for too long.
        """
        scored = [reward for reward in rewards if not math.isnan(reward)]
        if scored:
            self.highest = max(scored) if self.highest is None else max(self.highest, *scored)
        self.streak = 0 if taught else self.streak + 1
        self.without += not taught
        if self.teacher_patience and self.streak >= self.teacher_patience:
            best = "no reward was given" if self.highest is None else f"the highest summed reward was {self.highest:g}"
            said = "no reward gave feedback" if not feedback else f"{feedback} rollouts have feedback that is not used"
            raise ForgeError(
                f"SDPO learns nothing: no rollout had a teacher in {self.streak} batches of rollouts",
                f"{best}, a demonstration needs success_reward_threshold = {threshold:g}, and {said}",
                "lower the threshold, make the task easier, or have a reward give feedback",
            )
        if self.reward_patience and scored:
            self.recent.append(sum(scored) / len(scored))
            while len(self.recent) > self.reward_patience:
                self.recent.popleft()

    def collapsed(self) -> str | None:
        """Return what happened to the rewards if the run has collapsed."""
        if not self.reward_patience or len(self.recent) < self.reward_patience:
            return None
        mean = sum(self.recent) / len(self.recent)
        self.best = mean if self.best is None else max(self.best, mean)
        if self.best > 0 and mean < BELOW * self.best:
            return f"the mean reward of {self.reward_patience} batches fell from {self.best:.3g} to {mean:.3g}"
        return None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON data."""
        return {**asdict(self), "recent": list(self.recent)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        for name in ("without", "streak", "highest", "best"):
            setattr(self, name, state[name])
        self.recent = deque(state["recent"])
