"""What the model does now: metrics of base and tuned model side by side, and what they answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.text.evaluation import measured
from forge_report.scale import short
from forge_report.text import facts, value

if TYPE_CHECKING:
    from forge_report.record import Record


OPEN = 3
"""Samples that are shown at once; the others open on request."""

_ASKED = ("prompt", "question", "messages", "input", "text")
_WANTED = ("reference", "expected", "target", "label")
_ANSWERS = frozenset({"answers", "outputs", "completions"})


def metrics(record: Record) -> dict[str, Any] | None:
    """Return the metrics of ``evaluation.json``, and of later evaluations, as tables; None if there are none."""
    found = {"": record.evaluation or {}, **record.evaluations}
    shown = [_measured(name, each) for name, each in found.items() if each.get("metrics")]
    return {"evaluations": shown} if shown else None


def _measured(name: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    head, *rows = measured(evaluation["metrics"])
    report = {key.replace("_", " "): each for key, each in (evaluation.get("report") or {}).items()}
    for model, told in (evaluation.get("models") or {}).items():
        report |= {f"{model}, {key.replace('_', ' ')}": each for key, each in told.items()}
    return {"name": name, "count": value(evaluation.get("rows")), "head": head, "rows": rows, "report": facts(report)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of the base model beside that of the tuned one.

    Attributes:
        metric: Its name.
        values: The values by the models' names; the first two are compared.
        low: The lower end of the difference's 95 % interval; None where it is not known.
        high: The upper end.
        share: Whether the values are shares of 1.
    """

    metric: str
    values: Mapping[str, float]
    low: float | None
    high: float | None
    share: bool

    def told(self, found: float) -> str:
        """Return a value for people."""
        return f"{found:.0%}".replace("%", " %") if self.share else short(found)


def comparisons(record: Record) -> Iterator[Comparison]:
    """Yield the metrics of ``evaluation.json``; the interval is that of two models' difference."""
    for name, each in ((record.evaluation or {}).get("metrics") or {}).items():
        values = {model: found["value"] for model, found in each.items() if model != "difference"}
        values = {model: float(found) for model, found in values.items() if found is not None}
        between = (each.get("difference") or {}) if len(values) == 2 else {}
        share = any(found.get("share") for found in each.values())
        if values:
            yield Comparison(name, values, between.get("low"), between.get("high"), share)


def samples(record: Record) -> dict[str, Any] | None:
    """Return held-out rows with the answer of each model."""
    found = (record.evaluation or {}).get("samples")
    rows = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    names = [row.get("origin") or f"Row {index + 1}" for index, row in enumerate(rows)]
    return _some([_sample(name, {**row, "origin": None}, record) for name, row in zip(names, rows, strict=True)])


def answers(record: Record) -> dict[str, Any] | None:
    """Return what the model answered while it was trained, the first and the last that were logged."""
    return _some(
        [_sample(f"Step {value(each.get('step'))}", {**each, "step": None}, record) for each in record.samples]
    )


def _some(shown: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {"open": shown[:OPEN], "rest": shown[OPEN:]} if shown else None


def _sample(title: str, row: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """Return a sample: what was asked, what was wanted, the answers, and whatever else is told about it."""
    models = _table(record, "models")
    flat: dict[str, Any] = {}
    for key, each in row.items():
        if isinstance(each, Mapping) and (key in _ANSWERS or each.keys() & models.keys()):
            flat |= {model if key in _ANSWERS else f"{model}, {key}": told for model, told in each.items()}
        elif isinstance(each, Mapping) and key == "rewards":
            flat |= {f"reward {name}": told for name, told in each.items()}
        elif each is not None:
            flat[key] = each
    first = [key for key in (*_ASKED, *_WANTED) if key in flat]
    order = [*first, *(key for key in flat if key not in first)]
    texts = [key for key in order if isinstance(flat[key], str | list | dict)]
    numbers = {key.replace("_", " "): flat[key] for key in order if key not in texts}
    return {
        "title": title,
        "texts": [(key.replace("_", " "), _said(flat[key])) for key in texts],
        "numbers": facts(numbers),
    }


def _said(found: Any) -> str:
    """Return a text, the turns of a conversation, or several answers."""
    if isinstance(found, Mapping) and "text" in found:
        return str(found["text"])
    if isinstance(found, Mapping) and "content" in found:
        return f"{found.get('role', '')}: {_said(found['content'])}"
    if isinstance(found, list):
        return "\n\n".join(_said(item) for item in found)
    return value(found)


def _table(record: Record, name: str) -> dict[str, Any]:
    found = (record.evaluation or {}).get(name)
    return found if isinstance(found, dict) else {}
