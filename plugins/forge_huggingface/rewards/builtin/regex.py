"""The reward ``regex``: whether a regular expression matches, and what it caught is what the row says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from forge.api import NonEmpty, Table
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.text import completion_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Args(Table):
    """Settings of ``regex``."""

    pattern: NonEmpty = Field(
        description="Regular expression of Python's `re`; flags stand in front, as in `(?is)`. One that backtracks "
        "without end cannot be stopped."
    )
    mode: Literal["search", "full"] = Field(
        "search", description="`search` anywhere, the last match counts; `full`: the whole text, but for white space."
    )
    column: str | None = Field(None, description="Column that the group must equal, but for white space around it.")
    group: int | str | None = Field(
        None, description="Group to compare with the column: number or name. The first one if there is any."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Args:
        try:
            compiled = re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        if self.group is not None and self.column is None:
            raise ValueError("group is compared with a column; name one")
        if isinstance(self.group, int) and not 0 <= self.group <= compiled.groups:
            raise ValueError(f"group {self.group} is not in the pattern, which has {compiled.groups}")
        if isinstance(self.group, str) and self.group not in compiled.groupindex:
            there = ", ".join(compiled.groupindex) or "none"
            raise ValueError(f"group {self.group} is not in the pattern, which names {there}")
        return self

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rows must have."""
        return (self.column,) if self.column else ()


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    """Score completions, their thinking included."""
    pattern = re.compile(args.pattern)
    group = args.group if args.group is not None else min(pattern.groups, 1)
    right = columns[args.column] if args.column else [None] * len(completions)
    scores = []
    for completion, wanted in zip(completions, right, strict=True):
        text = completion_text(completion)
        if args.mode == "full":
            found = pattern.fullmatch(text.strip())
        else:
            found = next(iter([*pattern.finditer(text)][-1:]), None)
        if found is None:
            scores.append(Score(0.0, f"The answer must match the regular expression {args.pattern}"))
        else:
            caught = (found[group] or "").strip()
            scores.append(Score(float(args.column is None or caught == str(wanted).strip())))
    return scores
