"""How well a classifier tells labels, and how near numbers are: the scores, and how sure they are.

Accuracy is the share of rows whose label, or whose whole list of labels, is right. F1 is the mean over the classes of
their own F1, as scikit-learn's ``f1_score(average="macro")``: over those that a row has or the model tells, so that a
rare class counts as much as a frequent one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from forge_huggingface.heads.labels import REGRESSION, SEVERAL, Labels, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


NAMES = ("accuracy", "f1", "mse", "pearson")
"""All of them, of whatever is told."""

_RESAMPLES = 2000


def decided(labels: Labels, logits: Any) -> Any:
    """Return what a model tells: the number of a class, 0 or 1 for each class, or a number.

    Args:
        labels: What there is to tell.
        logits: The model's numbers, shape (rows, labels).

    Returns:
        Shape (rows,), of several labels a row (rows, labels).
    """
    if labels.problem_type == REGRESSION:
        return logits.reshape(len(logits))
    if labels.problem_type == SEVERAL:
        return (logits > 0).astype(numpy.int64)  # of which the sigmoid is above a half
    return logits.argmax(1)


def scores(labels: Labels, logits: Any, targets: Any) -> dict[str, float]:
    """Return all scores of all rows; ``targets`` are as the loss has them."""
    told = decided(labels, logits)
    return {name: float(_SCORES[name](told, targets)) for name in scores_of(labels)}


def accuracy(told: Any, targets: Any) -> float:
    """Return the share of rows that are right."""
    return float(right(told, targets).mean())


def right(told: Any, targets: Any) -> Any:
    """Return for each row whether all of it is right."""
    same = told == targets
    return same.all(1) if same.ndim > 1 else same


def f1(told: Any, targets: Any) -> float:
    """Return the mean F1 of the classes that a row has, or the model tells."""
    if told.ndim == 1:
        classes = numpy.union1d(told, targets)[None]
        told, targets = told[:, None] == classes, targets[:, None] == classes
    both, either = (told * targets).sum(0), told.sum(0) + targets.sum(0)
    # Of several labels all that there are count, as in scikit-learn; one that nobody has or tells is 0.
    return float(numpy.divide(2 * both, either, out=numpy.zeros(len(either)), where=either > 0).mean())


def mse(told: Any, targets: Any) -> float:
    """Return the mean squared error."""
    return float(numpy.square(told - targets).mean())


def pearson(told: Any, targets: Any) -> float:
    """Return Pearson's correlation; NaN where the rows, or what the model tells, are all alike."""
    one, other = told - told.mean(), targets - targets.mean()
    scale = numpy.sqrt(numpy.square(one).sum() * numpy.square(other).sum())
    return float((one * other).sum() / scale) if scale > 0 else numpy.nan


_SCORES: Mapping[str, Callable[[Any, Any], float]] = {"accuracy": accuracy, "f1": f1, "mse": mse, "pearson": pearson}


def beside(name: str, told: Mapping[str, Any], targets: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Return a score of each model, and of the last two the difference, with intervals over drawn rows (Efron 1979).

    Args:
        name: The score.
        told: What each model tells, by its name.
        targets: What the rows have.
        seed: For the draws, in which all models have the same rows.
    """
    score, count = _SCORES[name], len(targets)
    rng = numpy.random.default_rng(seed)
    drawn = {each: numpy.empty(_RESAMPLES) for each in told}
    for at in range(_RESAMPLES):
        rows = rng.integers(count, size=count)
        for each, said in told.items():
            drawn[each][at] = score(said[rows], targets[rows])
    found = {each: _entry(score(said, targets), drawn[each], count) for each, said in told.items()}
    if len(told) > 1:
        first, second = list(told)[-2:]
        gain = score(told[second], targets) - score(told[first], targets)
        found["difference"] = _entry(gain, drawn[second] - drawn[first], count)
    return {each: entry | {"share": name == "f1"} for each, entry in found.items()}


def _entry(value: float, drawn: Any, count: int) -> dict[str, Any]:
    known = drawn[numpy.isfinite(drawn)]
    if not numpy.isfinite(value) or not len(known):
        return {"value": None, "stderr": None, "low": None, "high": None, "n": 0}
    low, high = (float(each) for each in numpy.quantile(known, (0.025, 0.975)))
    return {"value": float(value), "stderr": float(known.std(ddof=1)), "low": low, "high": high, "n": count}
