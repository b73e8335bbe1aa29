"""The harness's results as forge's: every number with its interval, and the difference of two models.

The values are the harness's own. Where one is the mean over questions, as accuracies are, its interval is that of any
metric of forge's, and the difference is taken question by question. Of others (perplexities, BLEU, groups that are
weighted otherwise) there is the standard error that the harness gives, and the models count as independent.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from forge.text.intervals import difference, summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge_lm_eval.tasks import Exam

_Z = 1.959963984540054  # of the 95 % interval

Values = list[float]


def side_by_side(exam: Exam, found: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """Return the metrics of all models by name, with the difference of the last two.

    Args:
        exam: What was asked.
        found: What ``lm_eval.simple_evaluate`` returned, by model.
        seed: For bootstrapped intervals.
    """
    metrics: dict[str, dict[str, Any]] = {}
    first: Mapping[str, Any] = next(iter(found.values()), {"results": {}})
    for name in exam.shown:
        for key, value in _results(first, name).items():
            metric, _, how = key.partition(",")
            if isinstance(value, bool) or not isinstance(value, int | float) or metric.endswith("_stderr"):
                continue
            if metric in {"sample_len", "sample_count"}:
                continue
            label = f"lm-eval:{name} {metric}" + (f" ({how})" if how not in {"", "none"} else "")
            metrics[label] = _metric(exam, found, name, metric, how, seed)
    return metrics


def _metric(
    exam: Exam, found: Mapping[str, Mapping[str, Any]], name: str, metric: str, how: str, seed: int
) -> dict[str, Any]:
    """Return one metric of one task or group, of every model."""
    told = {who: float(_results(each, name)[f"{metric},{how}"]) for who, each in found.items()}
    values = {who: _values(exam, each, name, metric, how) for who, each in found.items()}
    means = all(each and math.isclose(sum(each) / len(each), told[who], abs_tol=1e-9) for who, each in values.items())
    if means:
        flat = [value for each in values.values() for value in each]
        binary, share = set(flat) <= {0.0, 1.0}, all(0 <= value <= 1 for value in flat)
        entries = {who: summary(each, seed=seed, binary=binary) for who, each in values.items()}
        for one, other in list(pairwise(values))[-1:]:
            entries["difference"] = difference(values[one], values[other], seed=seed, binary=binary)
    else:
        share = False
        counts = {who: len(each) or _count(exam, found[who], name) for who, each in values.items()}
        errors = {who: _error(each, name, metric, how) for who, each in found.items()}
        entries = {who: _plain(value, errors[who], counts[who]) for who, value in told.items()}
        for one, other in list(pairwise(told))[-1:]:
            pair = (errors[one], errors[other])
            error = None if None in pair else math.hypot(*(each for each in pair if each is not None))
            entries["difference"] = _plain(told[other] - told[one], error, counts[other])
    return {who: entry | {"share": share} for who, entry in entries.items()}


def _results(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    results: Mapping[str, Any] = found["results"].get(name) or found.get("groups", {}).get(name) or {}
    return results


def _values(exam: Exam, found: Mapping[str, Any], name: str, metric: str, how: str) -> Values:
    """Return a metric's value of each question, of all tasks of a group; none where it has no plain ones."""
    values: list[Any] = []
    for task in _tasks(exam, name):
        values += [one.get(metric) for one in found["samples"].get(task, ()) if one["filter"] == how]
    return [float(value) for value in values] if all(isinstance(value, int | float) for value in values) else []


def _tasks(exam: Exam, name: str) -> Sequence[str]:
    return [task.task_name for task in exam.groups[name].get_all_tasks()] if name in exam.groups else [name]


def _count(exam: Exam, found: Mapping[str, Any], name: str) -> int:
    return sum(found["n-samples"][task]["effective"] for task in _tasks(exam, name))


def _error(found: Mapping[str, Any], name: str, metric: str, how: str) -> float | None:
    error = _results(found, name).get(f"{metric}_stderr,{how}")
    return float(error) if isinstance(error, int | float) else None  # "N/A" where the harness has none


def _plain(value: float, error: float | None, count: int) -> dict[str, Any]:
    reach = None if error is None else _Z * error
    low, high = (None, None) if reach is None else (value - reach, value + reach)
    return {"value": value, "stderr": error, "low": low, "high": high, "n": count}
