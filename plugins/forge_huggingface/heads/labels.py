"""What rows are classified into: the names of the classes and their order, or that it is a number.

A row's label stays in the store as the row says it, and becomes a target only in a batch: which classes there are, all
training rows tell together.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from forge.api import DataError
from forge.text.units import counted
from forge_huggingface.facts.folder import read_object
from forge_huggingface.rows import BadRow, Label

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SINGLE, SEVERAL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
"""transformers' ``problem_type``."""

FILE = "labels.json"
"""Beside an adapter, whose config has no place for the labels."""

_NOWHERE = -100
"""A target that transformers takes for none."""

_LARGEST = 3e38  # what a number of 32 bits holds
_FEW = 10


@dataclass(frozen=True, slots=True)
class Labels:
    """What a model is to tell of a text.

    Attributes:
        problem_type: transformers' word.
        names: The names of the classes, in the order of the model's numbers; none of a number.
    """

    problem_type: str
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Self:
        """Return those that a summary of rows has."""
        return cls(summary["problem_type"], tuple(summary["labels"]))

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config says of them."""
        if self.problem_type == REGRESSION:
            return {"problem_type": self.problem_type, "num_labels": 1}
        names = dict(enumerate(self.names))
        back = {name: number for number, name in names.items()}
        return {"problem_type": self.problem_type, "id2label": names, "label2id": back}

    def target(self, label: Label) -> int | float | list[float]:
        """Return what the loss is computed with."""
        if self.problem_type == REGRESSION:
            assert isinstance(label, int | float | str)
            return float(label)
        if self.problem_type == SINGLE:
            return self.names.index(str(label))
        assert isinstance(label, tuple | list)
        return [float(name in label) for name in self.names]


def scores_of(labels: Labels) -> tuple[str, ...]:
    """Return the scores that there are of what a model tells."""
    return ("mse", "pearson") if labels.problem_type == REGRESSION else ("accuracy", "f1")


def kind_of(label: Label) -> str:
    """Return what a row's label alone says of the problem."""
    if isinstance(label, tuple | list):
        return SEVERAL
    return REGRESSION if isinstance(label, float) else SINGLE


def fitted(label: Label, problem_type: str, names: Sequence[str] | None, *, named: bool) -> Label:
    """Return a row's label as the problem has it.

    Args:
        label: The label.
        problem_type: transformers' word.
        names: The classes that there are; None while they are looked for.
        named: Whether the job names them.

    Raises:
        BadRow: It is of another kind, or of no class that there is.
    """
    if problem_type == REGRESSION:
        try:
            number = float(label)  # type: ignore[arg-type]  # a list is told below
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= _LARGEST:  # NaN and infinity among them
            do = 'mend it; for names write [train] problem_type = "single_label_classification"'
            raise BadRow(f"has the label {shown(label)}, which is no number to learn", "the others are numbers", do)
        if number == _NOWHERE:
            raise BadRow("has the number -100", "transformers takes it for no label", "scale the numbers otherwise")
        return number
    several = isinstance(label, tuple | list)
    if several != (problem_type == SEVERAL):
        what = "a list of labels, and the others have one" if several else "one label, and the others a list of them"
        do = f'write lists everywhere, or say how it is: [train] problem_type = "{SEVERAL}"'
        raise BadRow(f"has {what}", shown(label), do)
    if isinstance(label, float):
        do = 'for numbers write [train] problem_type = "regression"'
        raise BadRow(f"has the number {label} for a label", "the others are names of classes", do)
    every = tuple(label) if isinstance(label, tuple | list) else (str(label),)
    if named and names is not None and not any(map(_is_number, names)):
        every = tuple(_numbered(name, names) for name in every)
    if names is not None and (stranger := next((name for name in every if name not in names), None)) is not None:
        whose = "[train] labels does not name" if named else "no training row has"
        do = "mend it, or add it there" if named else "mend it, or name all labels: [train] labels = […]"
        raise BadRow(f"has the label {stranger!r}, which {whose}", f"there are {listed(names)}", do)
    return every if several else every[0]


def settle(found: Sequence[Label], options: Mapping[str, Any], problem_type: str, own: Sequence[str] | None) -> Labels:
    """Return the classes of all rows.

    Args:
        found: The labels of all rows of the training data, held-out ones among them.
        options: ``[train]``.
        problem_type: transformers' word.
        own: The labels that the model, or the adapter that training goes on from, has already.

    Raises:
        DataError: There is nothing to tell apart, or too much.
    """
    if problem_type == REGRESSION:
        if options.get("problem_type") is None and all(float(label).is_integer() for label in found):  # type: ignore[arg-type]
            raise DataError(
                "it is not clear whether the labels are numbers or classes",
                f"all {len(found)} are whole numbers that are written with a point, as {found[0]}",
                f'say it: [train] problem_type = "{REGRESSION}" or "{SINGLE}", and for classes write them without',
            )
        return Labels(REGRESSION)
    if named := options.get("labels"):
        return Labels(problem_type, tuple(named))
    names = sorted({name for label in found for name in every(label)}, key=_order)
    if len(names) < (1 if problem_type == SEVERAL else 2):
        why = f"every one of {counted(len(found), 'row')} has {shown(names[0]) if names else 'none'}"
        raise DataError("there are no labels to tell apart", why, "add rows of another label, or see [data] columns")
    if problem_type == SINGLE and len(names) > _FEW and 2 * len(names) > len(found):
        raise DataError(
            f"there are {len(names)} labels in {len(found)} rows",
            f"{listed(names)}: hardly one occurs twice",
            f'name another column: [data] columns = {{ label = "…" }}; for numbers write [train] problem_type = '
            f'"{REGRESSION}"; if they are right, name them all in [train] labels',
        )
    if own is not None and sorted(own) == sorted(names):
        return Labels(problem_type, tuple(own))
    return Labels(problem_type, tuple(names))


def every(label: Label) -> tuple[str, ...]:
    """Return the classes of a row."""
    return tuple(label) if isinstance(label, tuple | list) else (str(label),)


def described(labels: Labels, found: Sequence[Label]) -> dict[str, Any]:
    """Return what the training rows have of each label, for the summary."""
    known: dict[str, Any] = {"problem_type": labels.problem_type, "labels": list(labels.names)}
    if labels.problem_type == REGRESSION:
        numbers = [float(label) for label in found]  # type: ignore[arg-type]  # of a regression
        return known | {"mean": sum(numbers) / len(numbers), "lowest": min(numbers), "highest": max(numbers)}
    counts = Counter(name for label in found for name in every(label))
    return known | {"counts": {name: counts[name] for name in labels.names}}


def said(summary: Mapping[str, Any]) -> str:
    """Return what a summary says of the labels, for people."""
    if summary["problem_type"] == REGRESSION:
        return f"a number from {summary['lowest']:g} to {summary['highest']:g}, {summary['mean']:.3g} on average"
    counts = sorted(summary["counts"].items(), key=lambda each: -each[1])
    text = ", ".join(f"{name} {count}" for name, count in counts[:_FEW]) + (", …" if len(counts) > _FEW else "")
    what = counted(len(counts), "label")
    return f"{what}, of which a row has any number: {text}" if summary["problem_type"] == SEVERAL else f"{what}: {text}"


def doubts(labels: Labels, summary: Mapping[str, Any], rows: Sequence[tuple[bytes, Label]]) -> list[dict[str, str]]:
    """Return what speaks against the labels of the training rows, as warnings.

    Args:
        labels: The labels.
        summary: What is known of them.
        rows: A hash of each row's tokens, and its label.
    """
    found: list[dict[str, str]] = []
    counts: Mapping[str, int] = summary.get("counts", {})
    for number, what in ((0, "no training row"), (1, "one training row only")):
        if names := [name for name in labels.names if counts[name] == number]:
            do = "add rows of it" + (", or hold others out" if not number else "")
            found.append({"message": f"{what} has the label {listed(names)}", "do": do})
    first: dict[bytes, Label] = {}
    if count := sum(first.setdefault(print_, label) != label for print_, label in rows):
        verb = "has" if count == 1 else "have"
        what = f"{counted(count, 'training row')} with the tokens of another row {verb} another label"
        found.append({"message": what, "do": "mend the labels; if a cut made them equal, raise [model] max_seq_length"})
    return found


def own_labels(folder: Path) -> list[str] | None:
    """Return the labels that a model or an adapter in a folder has, in their order; None if it has none of its own."""
    if (folder / FILE).is_file():
        return [str(name) for name in read_object(folder / FILE).get("labels") or ()] or None
    file = folder / "config.json"
    config = read_object(file) if file.is_file() else {}
    names = config.get("id2label")
    heads = [str(name) for name in config.get("architectures") or ()]
    if not isinstance(names, dict) or not any(name.endswith("ForSequenceClassification") for name in heads):
        return None
    try:
        ordered = [str(names[key]) for key in sorted(names, key=int)]
    except (TypeError, ValueError):
        return None
    return None if all(name == f"LABEL_{number}" for number, name in enumerate(ordered)) else ordered


def shown(label: Label) -> str:
    """Return a label as a row has it."""
    return json.dumps(label, ensure_ascii=False)


def listed(names: Iterable[str]) -> str:
    """Return the first names."""
    every = list(names)
    return ", ".join(every[:_FEW]) + (f" and {len(every) - _FEW} more" if len(every) > _FEW else "")


def _numbered(name: str, names: Sequence[str]) -> str:
    """Return the name that a job gives to the class of a number, where rows have numbers."""
    return names[int(name)] if name.isdecimal() and int(name) < len(names) else name


def _is_number(name: str) -> bool:
    return name.lstrip("-").isdecimal()


def _order(name: str) -> tuple[int, float, str]:
    """Return where a class stands among others: numbers by size, then names by the alphabet."""
    return (0, int(name), "") if _is_number(name) else (1, 0, name)
