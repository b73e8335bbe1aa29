"""How long a training is expected to take: a record that a plugin fills in, by which forge takes what ends first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The time that a training takes with one backend.

    Attributes:
        start: Seconds until the first step ends, less what a later step takes: imports, loading, compiling.
        step: Seconds of a later step; None if that is unknown.
        steps: The number of steps; None if that is unknown.
        how: Whether runs on this machine tell it, or a table of other machines.
        why: What is not known and why, as a phrase; empty where everything is.

    Example:
        >>> Pace(start=20.0, step=0.5, steps=200, how="estimated").seconds
        120.0
    """

    start: float
    step: float | None
    steps: int | None
    how: Literal["measured", "estimated"]
    why: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds from the start to the end of the last step; None if that is unknown."""
        return None if self.step is None or self.steps is None else self.start + self.steps * self.step
