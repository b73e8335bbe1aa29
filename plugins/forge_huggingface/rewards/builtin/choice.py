"""The reward ``choice``: whether the completion chooses the right one of several options."""

from __future__ import annotations

import re
import reprlib
import string
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import NonEmpty, Table
from forge_huggingface.rewards.builtin.math_equal import final_answer
from forge_huggingface.rewards.score import Score, WrongReturnError
from forge_huggingface.rewards.text import answer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# What repeats gives nothing back: a model may well write a thousand spaces or stars.
_SAID = re.compile(
    r"\b(?:answer|choice|option)\b\**+(?:\s++is)?+\s*+:?\s*+\**+\s*+[\[(]?([A-Za-z])[\])]?(?![\w'])",
    re.IGNORECASE,
)
_ALONE = re.compile(r"^\W*([A-Za-z])\W*$")
_BEGINS = re.compile(r"^[\[(*]*([A-Z])[\])*]*[.:)](?:\s|$)")


class Args(Table):
    """Settings of ``choice``."""

    column: NonEmpty = Field(
        "answer", description="Column with the right choice: its letter, its text, or its index from 0."
    )
    choices: str | None = Field(
        None, description="Column with the list of options; without it, only letters can be told apart."
    )

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rows must have."""
        return (self.column, self.choices) if self.choices else (self.column,)


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    r"""Score completions by the choice that they end with.

    It is read from the last ``\boxed{…}``, or else from the last "answer: B", "the answer is (B)" or the like, or else
    from a last line that is a letter, begins with one ("B. Paris") or is the text of an option.
    """
    scores = []
    for index, completion in enumerate(completions):
        row = {name: columns[name][index] for name in args.columns()}
        if fault := row_fault(args, row):
            raise WrongReturnError(fault, index, "mend the row")
        scores.append(_score(answer_of(completion), row[args.column], row[args.choices] if args.choices else ()))
    return scores


def row_fault(args: Args, row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row's options or its right choice, or None."""
    right, options = row[args.column], row[args.choices] if args.choices else ()
    if not isinstance(options, list | tuple) or len(options) > len(string.ascii_uppercase):
        return f"the options are {reprlib.repr(options)}, which is no list of up to {len(string.ascii_uppercase)}"
    letters = _letters(options)
    if _right(right, options, letters) is not None:
        return None
    there = f"one of {letters[0]} to {letters[-1]}" + (", or the text of an option" if options else "")
    return f"the right choice is {reprlib.repr(right)}, which is not {there}"


def _letters(options: Sequence[Any]) -> str:
    return string.ascii_uppercase[: len(options) or len(string.ascii_uppercase)]


def _score(text: str, right: Any, options: Sequence[Any]) -> Score:
    letters = _letters(options)
    wanted = _right(right, options, letters)
    chosen = chosen_letter(text, options, letters)
    if chosen is None:
        example = f"{letters[0]} to {letters[-1]}" if options else "A"
        return Score(0.0, f"No choice was found. End with the letter of one option, such as Answer: {example}.")
    return Score(float(chosen == wanted))


def chosen_letter(text: str, options: Sequence[Any], letters: str) -> str | None:
    """Return the letter that a text chooses, or None."""
    boxed = final_answer(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if boxed is not None:
        return _as_letter(re.sub(r"\\text\{([^{}]*)\}", r"\1", boxed), options, letters)
    said = [found[1].upper() for found in _SAID.finditer(text) if found[1].upper() in letters]
    if said:
        return said[-1]
    return _as_letter(lines[-1], options, letters) if lines else None


def _as_letter(text: str, options: Sequence[Any], letters: str) -> str | None:
    found = _ALONE.match(text) or _BEGINS.match(text)
    if found and found[1].upper() in letters:
        return found[1].upper()
    plain = [_plain(option) for option in options]
    return letters[plain.index(_plain(text))] if _plain(text) in plain else None


def _right(right: Any, options: Sequence[Any], letters: str) -> str | None:
    if isinstance(right, int) and not isinstance(right, bool):
        return letters[right] if 0 <= right < len(letters) else None
    text = str(right).strip()
    plain = [_plain(option) for option in options]
    if _plain(text) in plain:  # before letters: an option may be called B
        return letters[plain.index(_plain(text))]
    letter = text.strip("()[]. ").upper()
    return letter if len(letter) == 1 and letter in letters else None


def _plain(text: Any) -> str:
    return " ".join(str(text).casefold().strip(string.punctuation + string.whitespace).split())
