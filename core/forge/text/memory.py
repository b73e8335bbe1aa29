"""An estimate of memory as text: for ``forge plan``, and beside what a dry run measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api.estimate import Estimate
from forge.text.units import amount, size

if TYPE_CHECKING:
    from collections.abc import Mapping


LEVERS = 5
"""How many ways to take less are shown."""


def describe(estimate: Estimate | None) -> list[str]:
    """Return the lines that tell an estimate: whether it fits, its parts, and what would take less."""
    if estimate is None:
        return ["memory    unknown until `forge run --dry-run`: the plugin that trains estimates none"]
    if estimate.process is None:
        return ["memory    unknown until `forge run --dry-run`: the model's config does not tell enough"]
    lines = [f"memory    {verdict(estimate)}"]
    lines += [
        f"{'':<12}{part.name:<12}{size(part.bytes):>10}  {part.how:<9}  {part.note}".rstrip() for part in estimate.parts
    ]
    there = sum(part.bytes or 0 for part in estimate.parts)
    if there > 1.02 * estimate.process:
        lines.append(f"{'':<12}not all of it is there at once")
    if estimate.cure:
        changes = "; ".join(map(str, estimate.cure))
        lines.append(f"{'':<10}to fit ({size(estimate.cured)} in all): {changes}")
    elif estimate.fits is False:
        lines.append(f"{'':<10}no change of the job that forge knows makes it fit; take a smaller model")
    if estimate.levers:
        lines.append(f"{'':<10}what would take less, each alone:")
    for lever in estimate.levers[:LEVERS]:
        cost = f" ({lever.cost})" if lever.cost else ""
        lines.append(f"{'':<12}{size(lever.saves):>10} less  {lever}{cost}")
    return lines


def verdict(estimate: Estimate) -> str:
    """Return in one line what it takes, for what, and whether that fits."""
    bound = "at least" if estimate.partial else "about"
    text = f"{bound} {size(estimate.process)} for {estimate.batch}"
    if estimate.room is None:
        return f"{text}; how much {estimate.device} has is unknown"
    says = "it does not fit" if not estimate.fits else "it may fit" if estimate.partial else "it fits"
    if estimate.fits and estimate.process and estimate.process > 0.9 * estimate.room:
        says = "it fits barely"
    return f"{text}, of {size(estimate.room)} on {estimate.device}: {says}"


def measured(dry: Mapping[str, Any]) -> list[str]:
    """Return the lines that tell what a dry run measured beside what was estimated, and what goes to the disk.

    Args:
        dry: The values of the event, which a report reads from the files of runs that may be incomplete.
    """
    lines = []
    found, disk = dry.get("measured") or {}, dry.get("disk") or {}
    estimate = Estimate.from_json(dry["estimate"]) if dry.get("estimate") else None
    if dry.get("tokens_in_all"):
        lines.append(f"rows    {amount(dry['tokens_in_all'])} tokens, the longest row has {dry['longest']}")
    expected = {part.name: part.bytes for part in estimate.parts} if estimate else {}
    expected["weights"] = _sum(expected.get("weights"), expected.pop("adapter", 0), expected.get("reference", 0))
    if found.get("moving") is not None and estimate and estimate.peak:
        expected["moving"] = estimate.peak - _sum(expected["weights"], expected.get("optimizer"))
    names = {"weights": "weights", "gradients": "gradients", "optimizer": "optimizer", "moving": "the rest"}
    for name, label in names.items():
        if found.get(name) is not None:
            lines.append(f"        {label:<10}{size(found[name]):>10} measured, {size(expected.get(name))} estimated")
    if found.get("peak") is not None and estimate is not None:
        # On a GPU this is what torch's allocator gave out; on a CPU the process's, and the optimizer comes on top.
        on_cpu = (estimate.process or 0) - (found.get("optimizer") or 0)
        whole = on_cpu if found.get("moving") is None else estimate.peak
        ratio = f" ({whole / found['peak']:.2f} of it)" if whole else ""
        lines.append(f"        {'peak':<10}{size(found['peak']):>10} measured, {size(whole)} estimated{ratio}")
    if disk:
        text = f"disk    {size(disk['total'])} at the most: checkpoints {disk['kept']} x {size(disk['checkpoint'])}, "
        text += f"weights {size(disk['weights'])}, exports {size(disk['exports'])}; {size(disk['free'])} are free"
        lines.append(text + ("" if disk["total"] < disk["free"] else ": not enough"))
    return lines


def _sum(*counts: int | None) -> int:
    return sum(count or 0 for count in counts)
