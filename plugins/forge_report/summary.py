"""What stands above everything else: which run it is, the figures that are asked for first, and the two verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from forge.text.units import amount, size
from forge_report import outcome
from forge_report.curves import losses
from forge_report.scale import short
from forge_report.text import clock
from forge_report.verdict import ends, healthy, learned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge_report.record import Record


class Tile(NamedTuple):
    """One figure, with what it is and what is to be known about it."""

    name: str
    figure: str
    more: str


def about(record: Record) -> dict[str, Any]:
    """Return the line below the run's name: the model, how it was trained, where and since when."""
    plan = record.plan
    job = plan.get("job") or {}
    method, adapter = (job.get("train") or {}).get("method"), (job.get("adapter") or {}).get("type")
    device = (record.last.get("loaded") or {}).get("device")
    words = [
        (plan.get("facts") or {}).get("id") or (job.get("model") or {}).get("id"),
        method,
        "every weight" if adapter == "none" else adapter,
        f"on {device}" if device else None,
    ]
    return {
        "words": [word for word in words if word],
        "began": record.sessions[0].began if record.sessions else None,
    }


def summary(record: Record) -> dict[str, Any]:
    """Return the figures, and the findings that answer whether it learned and whether it is healthy."""
    return {"tiles": list(_tiles(record)), "learned": learned(record), "healthy": healthy(record)}


def _health(record: Record) -> Iterator[Tile]:
    """Yield what tells whether answers can teach: how many groups differ in reward, and how many answers are cut."""
    for key, name, other in (
        ("frac_reward_zero_std", "groups that differ", True),
        ("completions/clipped_ratio", "answers cut", False),
    ):
        series = record.steps.get(key)
        if series and series.finite():
            first, last = (1 - share if other else share for share in ends(series)[:2])
            yield Tile(name, f"{last:.0%}", f"was {first:.0%}")


def _tiles(record: Record) -> Iterator[Tile]:
    """Yield the figures that are asked for first; a run that has not come so far has fewer."""
    for each in list(outcome.comparisons(record))[:3]:
        figure = " → ".join(each.told(found) for found in each.values.values())
        yield Tile(each.metric, figure, f"held-out rows, {' → '.join(each.values)}")
    online = "reward" in record.steps
    for name, held_out in () if online else losses(record):
        if values := held_out.finite():
            before = f"was {short(values[0])} at" if len(values) > 1 else "at"
            step = held_out.x[0] if len(values) > 1 else held_out.x[-1]
            yield Tile(f"held-out loss{f' ({name})' if name else ''}", short(values[-1]), f"{before} step {step:,}")
    series = record.steps.get("reward" if online else "loss")
    if series and series.finite():
        first, last, count = ends(series)
        how = f"means of {count:,} logged steps" if count > 1 else f"at step {series.x[0]:,}"
        yield Tile("reward" if online else "training loss", short(last), f"was {short(first)}, {how}")
    yield from _health(record) if online else ()
    if record.of is not None:
        yield Tile("steps", f"{record.step or 0:,}", f"of {record.of:,}")
    if seconds := sum(each.ended - each.began for each in record.sessions if each.task == "training"):
        attempts = sum(each.task == "training" for each in record.sessions)
        more = f", {attempts} attempts" if attempts > 1 else ""
        yield Tile("time", clock(seconds), f"reading, loading, training{more}")
    pace = record.steps.get("tokens_per_second")
    if pace and (values := sorted(pace.finite())):
        yield Tile("tokens a second", f"{values[len(values) // 2]:,.0f}", "median of the logged steps")
    if record.memory:
        yield Tile("memory", size(record.memory), "highest seen")
    counted: dict[str, Any] = (record.data or {}).get("summary") or {}
    if isinstance(counted.get("rows"), int):
        yield Tile("rows", f"{counted['rows']:,}", f"{amount(counted.get('tokens'))} tokens")
    dry = record.last.get("dry-run") or {}
    if estimate := (dry.get("steps") or 0) * (dry.get("seconds_per_step") or 0):
        yield Tile("training would take", clock(estimate), f"at most: {dry['steps']:,} times the longest batch")
