"""EVALUATE of a classifier: the held-out rows, their labels beside those that the model gives.

Beside it stands no base model, whose head would be a new one that says nothing: what is to be beaten is to always give
the same answer, the most frequent label of the training rows or the mean of their numbers.
"""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

from forge.api import Answers, Evaluated, Noted, PluginError, Who
from forge.text.intervals import difference, summary
from forge.text.units import cut
from forge_huggingface.evaluation.questions import held_out
from forge_huggingface.generation.labels import LabelGenerator
from forge_huggingface.generation.load import load_processor, make_renderer
from forge_huggingface.heads.heads import summary_of
from forge_huggingface.heads.labels import REGRESSION, SEVERAL, SINGLE, Labels, scores_of
from forge_huggingface.heads.scores import beside, decided, right
from forge_huggingface.hub.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forge.api import EvalTable, Generator, Job, Run, Trained
    from forge_huggingface.evaluation.questions import Question

_SHOWN = 2000  # characters of a kept text


def evaluate(job: Job, run: Run, trained: Trained, generate: Callable[[Who], Generator]) -> Evaluated:
    """Measure the trained model on the held-out rows, beside always giving the same answer.

    Raises:
        DataError: There are no rows, or they have other labels.
    """
    import numpy

    table, known = job.eval, summary_of(run)
    assert table is not None
    assert isinstance(run.plan, Answers)
    labels = Labels.of(known)
    renderer = make_renderer(job, run, load_processor(job, run, trained), snapshot(job, run, weights=False))
    rows = held_out(job, run, renderer)
    of = f" of {rows.read}" if rows.read > len(rows.questions) else ""
    dropped = f", {rows.bad} dropped: {rows.first_bad}" if rows.bad else ""
    run.emit(Noted(f"{len(rows.questions)}{of} rows, of {rows.name}{dropped}"))
    if rows.cuts.get("cut_tokens"):
        said = cut(rows.cuts["truncated"], rows.cuts["cut_share_of_rows"], rows.cuts["cut_share"])
        run.emit(Noted(f"rows are cut at max_seq_length: {said}"))
    stored = [question.rows[0] for question in rows.questions]
    targets = numpy.array([labels.target(json.loads(row["target"])) for row in stored])
    told: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    if Who.BASE in run.plan.models:
        same, what = constant(labels, known)
        run.emit(Noted(f"base stands for no model, but for always giving the same answer: {what}"))
        told[Who.BASE] = numpy.broadcast_to(same, targets.shape)
        models[Who.BASE] = {"constant": what}
    start, generator = time.monotonic(), generate(Who.TUNED)
    try:
        if not isinstance(generator, LabelGenerator):
            raise PluginError("the model was loaded to write, and gives no labels", type(generator).__name__)
        size = None if table.batch_size == "auto" else table.batch_size
        logits = generator.logits(stored, batch_size=size)
    finally:
        generator.close()
    told[Who.TUNED] = decided(labels, logits)
    models[Who.TUNED] = {"seconds": round(time.monotonic() - start, 2)}
    return Evaluated(
        rows=len(stored),
        models=models,
        metrics=measure(labels, told, losses(labels, logits, targets), targets, table),
        samples=[_sample(rows.questions[at], at, told, labels) for at in _chosen(len(stored), table)],
        report={
            "source": rows.name,
            "read": rows.read,
            "bad": rows.bad,
            "first_bad": rows.first_bad,
            **rows.cuts,
            "problem_type": labels.problem_type,
            "labels": list(labels.names),
            "seed": table.seed,
            "interval": "95 %: Wilson's and Newcombe's for accuracy, else bootstrapped over rows",
        },
    )


def constant(labels: Labels, known: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the one answer that is right most often on the training rows, as the scores have it and in words."""
    import numpy

    if labels.problem_type == REGRESSION:
        return known["mean"], f"{known['mean']:.4g}, the mean of the training rows"
    counts = known["counts"]
    if labels.problem_type == SINGLE:
        most = max(labels.names, key=lambda name: counts[name])
        return labels.names.index(most), f"{most}, the most frequent label of the training rows"
    frequent = [2 * counts[name] > known["rows"] for name in labels.names]
    chosen = [name for name, often in zip(labels.names, frequent, strict=True) if often]
    what = ", ".join(chosen) or "no label"
    return numpy.array(frequent, dtype=numpy.int64), f"{what}, by what more than half of the training rows have"


def losses(labels: Labels, logits: Any, targets: Any) -> list[float]:
    """Return the loss of each row, as training has it (nats, but for the squared error of a regression)."""
    import numpy

    logits = logits.astype(numpy.float64)
    if labels.problem_type == REGRESSION:
        found = numpy.square(logits.reshape(len(logits)) - targets)
    elif labels.problem_type == SEVERAL:
        found = (numpy.logaddexp(0, logits) - targets * logits).mean(1)
    else:
        found = numpy.logaddexp.reduce(logits, 1) - logits[numpy.arange(len(logits)), targets]
    return [float(each) for each in found]


def measure(
    labels: Labels, told: Mapping[str, Any], loss: list[float], targets: Any, table: EvalTable
) -> dict[str, dict[str, Any]]:
    """Return every score of every model, with the difference of the last two; those that the job names, or all."""
    nothing = {"value": None, "stderr": None, "low": None, "high": None, "n": 0, "share": False}
    found: dict[str, dict[str, Any]] = {
        "loss": {**dict.fromkeys(told, nothing), Who.TUNED: {**summary(loss, seed=table.seed), "share": False}}
    }
    for name in scores_of(labels):
        if table.metrics and name not in table.metrics:
            continue
        if name != "accuracy":
            found[name] = beside(name, told, targets, table.seed)
            continue
        values = {each: [float(value) for value in right(said, targets)] for each, said in told.items()}
        entries = {each: summary(value, seed=table.seed, binary=True) for each, value in values.items()}
        if len(values) > 1:
            first, second = list(values.values())[-2:]
            entries["difference"] = difference(first, second, seed=table.seed, binary=True)
        found[name] = {each: entry | {"share": True} for each, entry in entries.items()}
    return found


def _chosen(count: int, table: EvalTable) -> list[int]:
    rng = random.Random(table.seed)  # noqa: S311 - a repeatable choice, not a secret
    return sorted(rng.sample(range(count), min(table.samples, count)))


def _sample(question: Question, at: int, told: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {
        "origin": question.origin,
        "prompt": str(question.asked)[-_SHOWN:],
        "reference": _shown(json.loads(question.reference or "null")),
        "answers": {name: _shown(_named(each[at], labels)) for name, each in told.items()},
    }


def _named(value: Any, labels: Labels) -> Any:
    """Return what a model tells as a row would say it."""
    if labels.problem_type == REGRESSION:
        return round(float(value), 4)
    if labels.problem_type == SINGLE:
        return labels.names[int(value)]
    return [name for name, has in zip(labels.names, value, strict=True) if has]


def _shown(label: Any) -> str:
    return (", ".join(label) or "no label") if isinstance(label, list) else str(label)
