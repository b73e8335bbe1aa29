"""What a reward says of one completion, and reading it from what a function returned."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forge_huggingface.functions.blame import kind_of


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward says of one completion.

    Attributes:
        score: The number; ``None`` where the reward does not apply, which leaves it out of the sum.
        feedback: What to tell the model about it, for methods that do.
        extra: What else the function returned, for logs.
    """

    score: float | None
    feedback: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class WrongReturnError(Exception):
    """A function returned something else than scores.

    Args:
        message: A phrase.
        index: The completion whose value is wrong, if it is one.
        do: What to do about it, where it is not the function that must be mended.
    """

    def __init__(self, message: str, index: int | None = None, do: str | None = None) -> None:
        super().__init__(message)
        self.message, self.index, self.do = message, index, do


def read_scores(returned: Any, count: int) -> list[Score]:
    """Read what a function returned for ``count`` completions. Raises :class:`WrongReturnError`."""
    if hasattr(returned, "tolist"):  # an array or a tensor
        returned = returned.tolist()
    if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
        raise WrongReturnError(f"it returned {kind_of(returned)} and must return a list with one value a completion")
    if len(returned) != count:
        raise WrongReturnError(f"it returned {len(returned)} value{'s' * (len(returned) != 1)} for {count} completions")
    return [_read(value, index) for index, value in enumerate(returned)]


def _read(value: Any, index: int) -> Score:
    if isinstance(value, Score):
        value = {**value.extra, "score": value.score, "feedback": value.feedback}
    if not isinstance(value, Mapping):
        return Score(_number(value, index))
    if "score" not in value:
        there = ", ".join(map(str, value)) or "nothing"
        raise WrongReturnError(f"it returned a dict without score (it has {there})", index)
    feedback = value.get("feedback")
    if feedback is not None and not isinstance(feedback, str):
        raise WrongReturnError(f"its feedback is {kind_of(feedback)} and must be a string or None", index)
    extra = {str(key): _plain(item) for key, item in value.items() if key not in {"score", "feedback"}}
    return Score(_number(value["score"], index), feedback, extra)


def _number(value: Any, index: int) -> float | None:
    """Return a number; true and false are 1 and 0, as comparisons give them."""
    value = _plain(value)
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise WrongReturnError(f"it returned {kind_of(value)} and must return a number, None or a dict", index)
    if not is_finite(value):
        said = value if isinstance(value, float) else "an int that is too large"
        raise WrongReturnError(f"it returned {said}; None says that a reward does not apply", index)
    return float(value)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _plain(value: Any) -> Any:
    """Return the number that a scalar of numpy or a tensor of one element is, or else the value."""
    if hasattr(value, "item") and not isinstance(value, int | float):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # then it is not one number, and is told as such
            return value.item()
    return value
