"""Did it learn, and is it healthy: what the numbers say, in sentences, each with what can be done.

Only what was measured is said. A lower training loss alone shows that these rows are known better, so without held-out
rows the answer to the first question stays open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from forge.text.evaluation import cut_answers
from forge.text.units import cut
from forge_report.curves import losses
from forge_report.outcome import comparisons
from forge_report.record import told
from forge_report.scale import short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge_report.record import Record, Series


Level = Literal["good", "plain", "warn", "bad"]

RISEN = 1.02
"""A held-out loss this many times its lowest value has risen by more than it usually wavers."""

WARNINGS = 8

_LOWER = frozenset({"loss", "perplexity"})
_HIGHER = re.compile(r"exact-match|f1|json|json-keys|(rouge-|pass@).+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and whether it is good news."""

    level: Level
    text: str


def learned(record: Record) -> list[Finding]:
    """Say whether the model got better, and by which numbers."""
    doubts = (record.trained or {}).get("warnings")
    found = [Finding("bad", f"{text[:1].upper()}{text[1:]}.") for text in map(str, doubts or ())]
    found += _evaluated(record)
    if "reward" in record.steps:
        found += _reward(record)
    else:
        found += [*_held_out(record), *_training(record)]
    if not found:
        return [Finding("plain", "Nothing was trained yet, so nothing can be said about learning.")]
    if "reward" not in record.steps and not record.evaluation and not any(each.finite() for _, each in losses(record)):
        text = "No loss was measured on held-out rows, so these numbers do not tell learning from memorizing"
        found.append(Finding("warn", f"{text}: `[data] eval_size = 0.05` holds some rows back."))
    return found


def _evaluated(record: Record) -> Iterator[Finding]:
    """Tell the metrics that differ one by one, and those that may differ by chance in one sentence."""
    alike = []
    found = [each for each in comparisons(record) if len(each.values) > 1]
    for each in found:
        (before, first), (after, last) = list(each.values.items())[:2]
        if first == last or (each.low is not None and each.high is not None and each.low <= 0 <= each.high):
            alike.append(f"{each.metric} ({each.told(first)} → {each.told(last)})")
        elif each.metric != "perplexity" or not any(other.metric == "loss" for other in found):  # it says the same
            text = f"{each.metric}: {each.told(first)} for {before}, {each.told(last)} for {after}, on held-out rows."
            better = last < first if each.metric in _LOWER else last > first
            known = each.metric in _LOWER or _HIGHER.fullmatch(each.metric)
            yield Finding(("good" if better else "warn") if known else "plain", text)
    if alike:
        rows = (record.evaluation or {}).get("rows")
        yield Finding("plain", f"No clear difference on {rows} held-out rows: {', '.join(alike)}.")


def _held_out(record: Record) -> Iterator[Finding]:
    for name, series in losses(record):
        values = [(step, value) for step, value in zip(series.x, series.y, strict=True) if value == value]
        what = f"Held-out loss{f' of {name}' if name else ''}"
        if len(values) == 1 and not record.evaluation:
            (step, value) = values[0]
            text = f"{what} is {short(value)} at step {step:,}, measured once, so there is nothing to compare it with"
            yield Finding("plain", f"{text}: `[train] eval_on_start = true` measures it before the first step too.")
        if len(values) < 2:
            continue
        (first_step, first), (last_step, last) = values[0], values[-1]
        best_step, best = min(values, key=lambda pair: pair[1])
        way = _way(first, last)
        text = f"{what} {way} from {short(first)} at step {first_step:,} to {short(last)} at step {last_step:,}"
        yield Finding("good" if way == "fell" else "warn", f"{text}{_change(first, last)}.")
        if best > 0 and last > best * RISEN and best_step not in {first_step, last_step}:
            kept = (record.trained or {}).get("best_step")
            now = f"the weights of step {kept} were kept" if kept else "`load_best_model_at_end = true` keeps the best"
            text = (
                f"It was lowest, {short(best)}, at step {best_step:,} and has risen since{_change(best, last)}; {now}."
            )
            yield Finding("plain" if kept else "warn", text)


def _reward(record: Record) -> Iterator[Finding]:
    for series, what in ((record.evals.get("reward"), "Held-out reward"), (record.steps.get("reward"), "Reward")):
        if series is not None and len(series.finite()) > 1:
            first, last, count = ends(series)
            way = _way(first, last)
            text = f"{what} {way} from {short(first)} to {short(last)} {_means(count)}."
            few = count == 1 and what == "Reward"  # one step's mean of a few answers wavers
            yield Finding("plain" if few else "good" if way == "rose" else "warn", text)


def _training(record: Record) -> Iterator[Finding]:
    series = record.steps.get("loss")
    if series is not None and len(series.finite()) > 1:
        first, last, count = ends(series)
        way = _way(first, last)
        text = f"Training loss {way} from {short(first)} to {short(last)} {_means(count)}."
        yield Finding("plain" if way == "fell" else "warn", text)


def healthy(record: Record) -> list[Finding]:
    """Say what went wrong, or that nothing did."""
    found = [*_sessions(record), *_finite(record), *_online(record), *_data(record), *_exports(record)]
    found += _answers(record)
    warnings = list(dict.fromkeys(told(event) for event in record.happened if event.get("kind") == "warning"))
    found += [Finding("warn", text) for text in warnings[:WARNINGS]]
    if len(warnings) > WARNINGS:
        found.append(Finding("warn", f"{len(warnings) - WARNINGS} more warnings are listed under History."))
    found += [Finding("warn", f"{name} cannot be read: {why}") for name, why in record.unread.items()]
    order = ("bad", "warn", "plain", "good")
    found.sort(key=lambda finding: order.index(finding.level))
    if any(finding.level in {"bad", "warn"} for finding in found):
        return found
    return [Finding("good", "No warning, nothing is unfinished, and every logged number is finite."), *found]


def _sessions(record: Record) -> Iterator[Finding]:
    for index, session in enumerate(record.sessions):
        later = any(other.task == session.task and other.end == "done" for other in record.sessions[index + 1 :])
        what = f"{session.task.capitalize()}{f' at step {session.step:,}' if session.step else ''}"
        after = "; a later attempt came to its end" if later else ""
        if session.end == "failed":
            yield Finding("plain" if later else "bad", f"{what} failed: {session.message}{after}")
        elif session.end == "no word":
            text = f"{what} ended without a word: the process was killed, or the machine went down{after}"
            yield Finding("plain" if later else "bad", text)
        elif session.end == "stopped" and not later:
            yield Finding("warn", f"{what} was stopped: {session.message}")
        elif session.end == "running":
            yield Finding("plain", f"{what} is under way; this page shows what was there when it was made.")
    if record.resumes:
        points = ", ".join(f"{step:,}" for step in record.resumes)
        again = f"; {record.again:,} logged steps were trained again" if record.again else ""
        yield Finding("plain", f"Training went on from step {points}{again}.")


def _finite(record: Record) -> Iterator[Finding]:
    for name in ("loss", "grad_norm"):
        series = record.steps.get(name)
        if series is None:
            continue
        wrong = [step for step, value in zip(series.x, series.y, strict=True) if value != value]
        if wrong:
            text = (
                f"{name} was NaN or infinite at {len(wrong):,} of {len(series.x):,} logged steps, first at {wrong[0]:,}"
            )
            yield Finding("bad", f"{text}; a lower learning_rate, or bf16 instead of fp16, usually helps")


def _online(record: Record) -> Iterator[Finding]:
    if (rewards := record.steps.get("reward")) and (without := len(rewards.y) - len(rewards.finite())):
        text = f"At {without:,} of {len(rewards.y):,} logged steps no answer had a reward, so nothing was learned there"
        yield Finding("warn", f"{text}; see the reward functions")
    if (same := _last(record, "frac_reward_zero_std")) is not None and same > 0.8:
        text = f"At the end the answers did not differ in reward in {same:.0%} of the groups, and those teach nothing"
        yield Finding("warn", f"{text}; use rows that are neither too easy nor too hard, or a finer reward")
    if (cut := _last(record, "completions/clipped_ratio")) is not None and cut > 0.5:
        text = f"At the end {cut:.0%} of the answers were cut at max_completion_length"
        yield Finding("warn", f"{text}; raise it, or reward shorter answers")


def _data(record: Record) -> Iterator[Finding]:
    summary: dict[str, Any] = (record.data or {}).get("summary") or {}
    if dropped := summary.get("dropped"):
        parts = f"{summary.get('dropped_bad', 0):,} bad, {summary.get('dropped_long', 0):,} too long"
        yield Finding("warn", f"{dropped:,} of {summary.get('read', 0):,} rows were dropped ({parts})")
    if (count := summary.get("truncated")) and "cut_share" in summary:
        said = cut(count, summary.get("cut_share_of_rows"), summary["cut_share"])
        yield Finding("warn", f"Rows longer than max_seq_length were cut: {said}")


def _exports(record: Record) -> Iterator[Finding]:
    for name, export in record.exports.items():
        if export is None:
            yield Finding("warn", f"Export {name} is not whole: `forge export` makes it again")


def _answers(record: Record) -> Iterator[Finding]:
    asked = record.evaluation or {}
    for name, text in cut_answers(asked.get("models") or {}, asked.get("report") or {}):
        yield Finding("warn", f"In the evaluation of {name}, {text}")


def ends(series: Series) -> tuple[float, float, int]:
    """Return the means of the first and of the last tenth of a series, and of how many values they are."""
    values = series.finite()
    count = max(1, len(values) // 10)
    return sum(values[:count]) / count, sum(values[-count:]) / count, count


def _last(record: Record, name: str) -> float | None:
    series = record.steps.get(name)
    return ends(series)[1] if series and series.finite() else None


def _means(count: int) -> str:
    many = f"means of the first and the last {count:,} logged steps" if count > 1 else "first and last logged value"
    return f"({many})"


def _way(first: float, last: float) -> str:
    if abs(last - first) <= 0.005 * abs(first):
        return "did not change much:"
    return "fell" if last < first else "rose"


def _change(first: float, last: float) -> str:
    return f" ({(last - first) / abs(first) * 100:+.3g} %)" if first else ""
