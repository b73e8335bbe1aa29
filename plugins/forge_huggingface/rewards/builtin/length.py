"""The reward ``length``: whether a completion is as long as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from forge.api import Mistake, Table
from forge_huggingface.rewards.score import Score, WrongReturnError
from forge_huggingface.rewards.text import completion_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Args(Table):
    """Settings of ``length``."""

    min: int = Field(
        0, ge=0, description="Shortest length that scores 1. Below, the score falls evenly to 0 at length 0."
    )
    max: int | None = Field(None, ge=1, description="Longest length that scores 1.")
    falloff: int | None = Field(
        None, ge=1, description="How far above `max` the score has fallen evenly to 0; as far as `max` itself if unset."
    )
    unit: Literal["tokens", "characters"] = Field("tokens", description="What is counted, thinking included.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the settings contradict each other in."""
        if not self.min and self.max is None:
            yield Mistake("there is no length to keep to; write min, max or both", ("min",))
        if self.max is not None and self.min > self.max:
            yield Mistake(f"min ({self.min}) is above max ({self.max})", ("min", "max"))
        if self.falloff is not None and self.max is None:
            yield Mistake("falloff is what happens above max, and there is none", ("falloff",))

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rows must have."""
        return ()


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    """Score completions; tokens are those that the trainer generated, its end token among them."""
    if args.unit == "characters":
        lengths = [len(completion_text(completion)) for completion in completions]
    elif (ids := columns.get("completion_ids")) is not None:
        lengths = [len(each) for each in ids]
    else:
        raise WrongReturnError("the tokens are not known here", do='write unit = "characters" in its args')
    return [_score(args, length) for length in lengths]


def _score(args: Args, length: int) -> Score:
    said = {"length": length}
    if length < args.min:
        wish = f"The answer has {length} {args.unit}; write at least {args.min}."
        return Score(length / args.min, wish, said)
    if args.max is not None and length > args.max:
        wish = f"The answer has {length} {args.unit}; write at most {args.max}."
        return Score(max(0.0, 1 - (length - args.max) / (args.falloff or args.max)), wish, said)
    return Score(1.0, extra=said)
