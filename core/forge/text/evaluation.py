"""What an evaluation found, as a table for people: the console, the model card and a report show the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def measured(metrics: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of a table of metrics, its head first: the models side by side, then their difference.

    Args:
        metrics: As in :class:`forge.api.Evaluated`.
    """
    names = list(dict.fromkeys(name for found in metrics.values() for name in found if name != "difference"))
    differ = any("difference" in found for found in metrics.values())
    rows = [["metric", *names, *([f"{names[-1]} - {names[-2]}"] if differ else []), "rows"]]
    for metric, found in metrics.items():
        cells = [cell(found.get(name)) for name in names]
        if differ:
            cells.append(cell(found.get("difference"), sign="+"))
        rows.append([metric, *cells, str(max(entry["n"] for entry in found.values()))])
    return rows


def cut_answers(models: Mapping[str, Mapping[str, Any]], report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield for each model whose answers did not all come to an end its name, and what became of the others.

    Args:
        models: As in :class:`forge.api.Evaluated`.
        report: The same.
    """
    end = f", or at the model's {positions} positions" if (positions := report.get("positions")) else ""
    for name, model in models.items():
        if left := 1 - model.get("finished", 1.0):
            limit = report["sampling"]["max_new_tokens"]
            yield name, f"{left:.0%} of the answers were cut at max_new_tokens ({limit}){end}"


def cell(entry: Mapping[str, Any] | None, sign: str = "") -> str:
    """Return a value with its 95 % interval, if it has one, a share in percent; a dash where there is none."""
    if entry is None or entry["value"] is None:
        return "-"
    if entry.get("share"):
        value, low, high = (100 * entry[key] for key in ("value", "low", "high"))
        return f"{value:{sign}.0f} % [{low:{sign}.0f}, {high:{sign}.0f}]"
    if entry["low"] is None:
        return f"{entry['value']:{sign}.4g}"
    value, low, high = (entry[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.4g} [{low:{sign}.4g}, {high:{sign}.4g}]"
