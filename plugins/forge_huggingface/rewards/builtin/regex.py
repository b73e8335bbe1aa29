"""The reward ``regex``: whether a regular expression matches, and what it caught is what the row says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from forge.api import Mistake, NonEmpty, Table
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.text import completion_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


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

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the settings contradict each other in."""
        try:
            compiled = re.compile(self.pattern)
        except re.error as error:
            yield Mistake(f"pattern is no regular expression: {error}", ("pattern",))
            return
        there = ", ".join(compiled.groupindex) or "none"
        if self.group is not None and self.column is None:
            yield Mistake("group is compared with a column; name one", ("group",))
        elif isinstance(self.group, int) and not 0 <= self.group <= compiled.groups:
            yield Mistake(f"group {self.group} is not in the pattern, which has {compiled.groups}", ("group",))
        elif isinstance(self.group, str) and self.group not in compiled.groupindex:
            yield Mistake(f"group {self.group} is not in the pattern, which names {there}", ("group",))

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
