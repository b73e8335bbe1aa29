"""EVALUATE: the held-out rows, asked of the base model and of what was trained, side by side.

Loss and perplexity are those of the tokens that training would learn from. Answers are greedy unless the job says
otherwise: a drawn answer differs from run to run, and with a few hundred rows that alone moves a score by more than
most trainings do. Every number comes with the rows it is of and an interval, so that nobody takes chance for progress.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from forge.api import Answering, Answers, Evaluated, Noted, Sampling, Who, ask_each
from forge.text.intervals import difference, summary
from forge.text.units import cut
from forge_huggingface.evaluation import labels
from forge_huggingface.evaluation.judge import Judge
from forge_huggingface.evaluation.questions import HeldOut, Question, held_out
from forge_huggingface.generation.load import load_processor, make_renderer
from forge_huggingface.generation.sampling import describe
from forge_huggingface.heads.heads import CLASSIFICATION
from forge_huggingface.hub.card import renew
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rows import text_of
from forge_huggingface.rules.data import asks_rows
from forge_huggingface.rules.placement import positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from forge.api import Answer, EvalTable, Generator, Job, Run, Trained


LONGEST = 256
"""The longest answer in tokens, where neither ``[eval]`` nor a recommendation says one."""

_SAY_SECONDS = 5.0
_SHOWN = 2000  # characters of a kept answer


@dataclass(slots=True)
class Answered:
    """What one model gave.

    Attributes:
        losses: For each row the sum of its loss in nats and the number of its tokens; None if it cannot be had.
        answers: The answers to rows that were asked, by the row's index.
        sampling: How they were generated.
        seconds: How long all of it took.
    """

    losses: list[tuple[float, int]] | None = None
    answers: dict[int, list[Answer]] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    seconds: float = 0.0


def evaluate(
    job: Job, run: Run, trained: Trained, generate: Callable[[Who], Generator], measured: Evaluated | None
) -> Evaluated:
    """Measure every model of the plan on the held-out rows, and write the run's card with all that was measured.

    Raises:
        DataError: There are no rows, or the metrics cannot judge them.
        MetricError: A function of the user's failed.
    """
    if trained.task == CLASSIFICATION:
        result = labels.evaluate(job, run, trained, generate)
    elif asks_rows(job):
        result = _of_rows(job, run, trained, generate)
    else:
        result = Evaluated(rows=0, models={}, metrics={})
    renew(job, run, trained, result.beside(measured))
    return result


def _of_rows(job: Job, run: Run, trained: Trained, generate: Callable[[Who], Generator]) -> Evaluated:
    """Measure every model of the plan on the held-out rows."""
    table = job.eval
    assert table is not None
    weights = run.folder / trained.weights
    folder = weights if (weights / "config.json").is_file() else snapshot(job, run, weights=False)
    renderer = make_renderer(job, run, load_processor(job, run, trained), folder)
    rows, judge = held_out(job, run, renderer), Judge(job, run)
    judge.check(rows)
    shown = _shown(rows, table)
    wanted = [at for at, one in enumerate(rows.questions) if one.prompt is not None] if judge.metrics else shown
    of = f" of {rows.read}" if rows.read > len(rows.questions) else ""
    dropped = f", {rows.bad} dropped: {rows.first_bad}" if rows.bad else ""
    run.emit(Noted(f"{len(rows.questions)}{of} rows, {len(wanted)} to answer, of {rows.name}{dropped}"))
    if rows.cuts.get("cut_tokens"):
        said = cut(rows.cuts["truncated"], rows.cuts["cut_share_of_rows"], rows.cuts["cut_share"])
        run.emit(Noted(f"the loss is of rows that are cut at max_seq_length: {said}"))

    found = ask_all(run, table, rows, wanted, judge.count, generate)
    metrics = measure(found, rows, wanted, judge, table)
    report = {
        "source": rows.name,
        "read": rows.read,
        "bad": rows.bad,
        "first_bad": rows.first_bad,
        **rows.cuts,
        "answered": len(wanted),
        "num_generations": judge.count,
        "sampling": describe(next(iter(found.values())).sampling),
        "positions": positions(run.plan.facts),
        "seed": table.seed,
        "interval": "95 %: Wilson's and Newcombe's for shares of yes and no, else bootstrapped over rows",
    }
    return Evaluated(
        rows=len(rows.questions),
        models={name: _about(asked) for name, asked in found.items()},
        metrics=metrics,
        samples=[_sample(rows.questions[at], at, found) for at in shown],
        report=report,
    )


def ask_all(
    run: Run,
    table: EvalTable,
    rows: HeldOut,
    wanted: Sequence[int],
    count: int,
    generate: Callable[[Who], Generator],
) -> dict[str, Answered]:
    """Ask every model of the plan, one after the other; where one set of weights serves two, it is loaded once."""
    assert isinstance(run.plan, Answers)
    found: dict[Who, Answered] = {}

    def ask(name: Who, generator: Generator) -> None:
        found[name] = ask_one(name, generator, run, table, rows, wanted, count)

    ask_each(run.plan.models, generate, ask)
    return {name: found[name] for name in run.plan.models}


def ask_one(
    name: str,
    generator: Generator,
    run: Run,
    table: EvalTable,
    rows: HeldOut,
    wanted: Sequence[int],
    count: int,
) -> Answered:
    """Measure the loss of all rows, and let a model answer those that are wanted."""
    start = said = time.monotonic()
    tokens = [row for question in rows.questions for row in question.rows]
    asked = Answered(sampling=sampling_of(table, generator))
    size = None if table.batch_size == "auto" else table.batch_size
    if tokens:
        measured = generator.losses(tokens, batch_size=size)
        if measured is not None:
            each = iter(measured)
            asked.losses = [_sum(islice(each, len(question.rows))) for question in rows.questions]
    prompts = [prompt for at in wanted if (prompt := rows.questions[at].prompt) is not None]
    for index, answers in generator.complete(prompts, asked.sampling, count=count, batch_size=size):
        asked.answers[wanted[index]] = answers
        whole = len(asked.answers) % (size or 8) == 0  # the answers of a batch come at once
        if whole and (now := time.monotonic()) - said > _SAY_SECONDS:
            said = now
            run.emit(Answering(name, rows=len(asked.answers), of=len(wanted)))
    asked.seconds = time.monotonic() - start
    return asked


def _sum(pieces: Iterable[tuple[float, int]]) -> tuple[float, int]:
    """Return the loss of a row and the number of its tokens from those of the pieces that it has become."""
    losses, counts = zip((0.0, 0), *pieces, strict=True)
    return sum(losses), sum(counts)


def sampling_of(table: EvalTable, generator: Generator) -> Sampling:
    """Return how answers are generated: greedy, or as recommended; then what ``[eval]`` itself says."""
    base = generator.sampling if table.sampling == "recommended" else Sampling(max_new_tokens=LONGEST)
    return replace(base, **{"seed": table.seed, **table.asked()})


def measure(
    found: Mapping[str, Answered], rows: HeldOut, wanted: Sequence[int], judge: Judge, table: EvalTable
) -> dict[str, dict[str, Any]]:
    """Return every metric of every model, with the difference of the last two."""
    metrics: dict[str, dict[str, Any]] = {}
    losses = {name: asked.losses for name, asked in found.items() if asked.losses}
    if losses:
        sums = {name: [loss if count else None for loss, count in each] for name, each in losses.items()}
        counts = [float(count) for _, count in next(iter(losses.values()))]
        metrics["loss"] = _side_by_side(sums, table.seed, weights=counts)
        metrics["perplexity"] = {name: _perplexity(metrics["loss"][name]) for name in losses}
    if judge.metrics:
        questions = [rows.questions[at] for at in wanted]
        by_model = {
            name: judge.judge(questions, [[answer.text for answer in asked.answers[at]] for at in wanted])
            for name, asked in found.items()
        }
        for key in dict.fromkeys(key for values in by_model.values() for key in values):
            metrics[key] = _side_by_side(
                {name: each[key] for name, each in by_model.items() if key in each}, table.seed
            )
    # What counts for no row says nothing: the keys of JSON, where no reference is JSON.
    return {key: found for key, found in metrics.items() if any(entry["n"] for entry in found.values())}


def _side_by_side(
    values: Mapping[str, Sequence[float | None]], seed: int, weights: Sequence[float] | None = None
) -> dict[str, Any]:
    flat = [value for each in values.values() for value in each if value is not None]
    binary = weights is None and all(value in (0, 1) for value in flat)
    found: dict[str, Any] = {
        name: summary(each, seed=seed, weights=weights, binary=binary) for name, each in values.items()
    }
    if len(values) > 1:
        first, second = list(values.values())[-2:]
        found["difference"] = difference(first, second, seed=seed, weights=weights, binary=binary)
    share = weights is None and all(0 <= value <= 1 for value in flat)
    return {name: entry | {"share": share} for name, entry in found.items()}


def _perplexity(loss: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exponential of a loss; a huge one becomes infinity, which JSON writes as null."""

    def power(value: float | None) -> float | None:
        return None if value is None else math.exp(value) if value < 700 else math.inf

    value = power(loss["value"])
    error = None if value is None else value * loss["stderr"]
    return {
        "value": value,
        "stderr": error,
        "low": power(loss["low"]),
        "high": power(loss["high"]),
        "n": loss["n"],
        "share": False,
    }


def _shown(rows: HeldOut, table: EvalTable) -> list[int]:
    """Return the indices of the rows to keep for people, drawn by the seed: the first of a file are often alike."""
    able = [at for at, question in enumerate(rows.questions) if question.prompt is not None]
    rng = random.Random(table.seed)  # noqa: S311 - a repeatable choice, not a secret
    return sorted(rng.sample(able, min(table.samples, len(able))))


def _about(asked: Answered) -> dict[str, Any]:
    answers = [answer for row in asked.answers.values() for answer in row]
    about: dict[str, Any] = {"seconds": round(asked.seconds, 2), "answers": len(answers)}
    if answers:
        about["tokens"] = sum(answer.tokens for answer in answers)
        about["finished"] = sum(answer.finished for answer in answers) / len(answers)
    return about


def _sample(question: Question, at: int, found: Mapping[str, Answered]) -> dict[str, Any]:
    asked = question.asked
    prompt = asked if isinstance(asked, str) else text_of(asked[-1]["content"]) if asked else ""
    answers = {name: each.answers[at][0].text[:_SHOWN] for name, each in found.items()}
    return {
        "origin": question.origin,
        "prompt": prompt[-_SHOWN:],
        "reference": question.reference[:_SHOWN] if question.reference is not None else None,
        "answers": answers,
    }
