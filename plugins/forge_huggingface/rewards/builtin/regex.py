"""The reward ``regex``: whether a regular expression matches, and what it caught is what the row says."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from forge.api import Mistake, NonEmpty, Table
from forge_huggingface.rewards.aside import TooLongError, WorkError, ask
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.text import completion_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


SECONDS = 1
"""Seconds for one answer: an expression may backtrack without end."""


class Args(Table):
    """Settings of ``regex``."""

    pattern: NonEmpty = Field(description="Regular expression of Python's `re`; flags stand in front, as in `(?is)`.")
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
        except (re.error, OverflowError, RecursionError) as error:
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
    right = columns[args.column] if args.column else [None] * len(completions)
    pairs = zip(completions, right, strict=True)
    return [_score(args, completion_text(completion), wanted) for completion, wanted in pairs]


def _score(args: Args, text: str, wanted: Any) -> Score:
    try:
        caught = ask(f"{__name__}:match", SECONDS, args.pattern, args.mode, args.group, text)
    except (TooLongError, WorkError):
        wish = f"The answer could not be searched in {SECONDS} s for the regular expression {args.pattern}"
        return Score(0.0, wish, {"gave_up": 1})
    if caught is None:
        return Score(0.0, f"The answer must match the regular expression {args.pattern}", {"gave_up": 0})
    return Score(float(args.column is None or caught == str(wanted).strip()), extra={"gave_up": 0})


def match(expression: str, mode: str, group: int | str | None, text: str) -> str | None:
    """Return what a group of the match caught, without white space around it, or None if nothing matches."""
    pattern = re.compile(expression)
    last = deque([pattern.fullmatch(text.strip())] if mode == "full" else pattern.finditer(text), maxlen=1)
    found = last[0] if last else None
    if found is None:
        return None
    return (found[group if group is not None else min(pattern.groups, 1)] or "").strip()
