r"""The reward ``math-equal``: whether the final answer equals the row's, as mathematics.

math-verify reads and compares (https://github.com/huggingface/math-verify). What counts as the final answer is chosen
here where it matters: of several ``\boxed{…}`` math-verify makes a set, and a model must not be paid for naming all
the answers it can think of.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import NonEmpty, Table
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.text import answer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


SECONDS = 3
"""Seconds for reading an expression and for comparing two: ``10^{10^{10}}`` would take forever."""

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
    start = text.rfind(r"\boxed{")
    while start >= 0:
        depth, begin = 1, start + len(r"\boxed{")
        for at in range(begin, len(text)):
            escaped = text[at - 1] == "\\"
            depth += 0 if escaped else {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                return text[begin:at]
        start = text.rfind(r"\boxed{", 0, start)
    return None


def _score(text: str, right: Any) -> Score:
    gold = _read(_gold(str(right)))
    if not gold:
        return Score(None, extra={"answered": 0})
    boxed = final_answer(text)
    found = _read(text if boxed is None else rf"$\boxed{{{boxed}}}$")
    if not found:
        return Score(0.0, NO_ANSWER, {"answered": 0})
    return Score(float(_equal(gold, found)), extra={"answered": 1})


def _gold(right: str) -> str:
    right = right.rpartition("####")[2].strip()  # as GSM8K writes its solutions
    return right if "$" in right or "\\boxed" in right else f"${right}$"


def _read(text: str) -> list[Any]:
    from math_verify import parse

    _quiet()
    found: list[Any] = parse(text, fallback_mode="no_fallback", parsing_timeout=_seconds())
    return found


def _equal(gold: list[Any], found: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, found, timeout_seconds=_seconds()))


def _seconds() -> int | None:
    """Return the time limit; it is kept by a signal, which only the main thread can get."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None


def _quiet() -> None:
    """An answer that takes too long is wrong, and no reason for a warning on each of thousands."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
