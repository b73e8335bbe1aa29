r"""The reward ``math-equal``: whether the final answer equals the row's, as mathematics.

math-verify reads and compares (https://github.com/huggingface/math-verify). What counts as the final answer is chosen
here where it matters: of several ``\boxed{…}`` math-verify makes a set, and a model must not be paid for naming all
the answers it can think of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import NonEmpty, Table
from forge_huggingface.rewards.aside import TooLongError, WorkError, ask
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.text import answer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


SECONDS = 3
"""Seconds for reading two expressions and comparing them: ``10^{10^{10}}`` would take forever."""

_ASIDE = "forge_huggingface.rewards.builtin.mathematics"
_BOXED = "\\boxed"
_BRACE = re.compile(r"(?<!\\)[{}]")

NO_ANSWER = r"No final answer was found. End with the final answer in \boxed{}."


class Args(Table):
    """Settings of ``math-equal``."""

    column: NonEmpty = Field(
        "answer", description="Column with the right answer: a number, LaTeX, or a text that ends with `#### answer`."
    )

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rows must have."""
        return (self.column,)


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    r"""Score completions by their last ``\boxed{…}``, or else by the last number or formula.

    Feedback is about the form only: naming the answer, or that it is wrong, would give it away (arXiv 2601.20802 does
    the same). A row whose own answer cannot be read scores ``None``.
    """
    pairs = zip(completions, columns[args.column], strict=True)
    return [_score(answer_of(completion), right) for completion, right in pairs]


def final_answer(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` whose braces are closed, or None."""
    open_: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        at = brace.start()
        if brace[0] == "{":
            open_.append(at)
        elif open_:
            begin = open_.pop()
            if text.endswith(_BOXED, 0, begin) and (last is None or begin > last[0]):
                last = begin, at
    return None if last is None else text[last[0] + 1 : last[1]]


def _score(text: str, right: Any) -> Score:
    gold, boxed = _gold(str(right)), final_answer(text)
    try:
        read, answered, equal = ask(
            f"{_ASIDE}:compare", SECONDS, gold, text if boxed is None else rf"$\boxed{{{boxed}}}$"
        )
    except TooLongError:
        return Score(0.0 if _readable(gold) else None, extra={"answered": 0, "gave_up": 1})
    except WorkError:  # such as no memory for a number
        read, answered, equal = _readable(gold), False, False
    if not read:
        return Score(None, extra={"answered": 0, "gave_up": 0})
    return Score(float(equal), None if answered else NO_ANSWER, {"answered": int(answered), "gave_up": 0})


def _readable(gold: str) -> bool:
    try:
        return bool(ask(f"{_ASIDE}:readable", SECONDS, gold))
    except (TooLongError, WorkError):
        return False


def _gold(right: str) -> str:
    right = right.rpartition("####")[2].strip()  # as GSM8K writes its solutions
    return right if "$" in right or "\\boxed" in right else f"${right}$"
