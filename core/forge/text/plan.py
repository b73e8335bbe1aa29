"""A plan as text."""

from __future__ import annotations

from forge.api.plan import Against, Plan, Training, Verdict
from forge.api.stage import Stage
from forge.job.literal import literal
from forge.text.memory import describe as describe_estimate
from forge.text.units import amount, size


def describe(plan: Plan, *, ran: bool = False) -> str:
    """Return a plan as text for people; of one that ran, without what a dry run would tell."""
    machine, facts = plan.machine, plan.facts
    cards = ", ".join(f"{card.name} ({size(card.memory)})" for card in machine.accelerators) or "no accelerator"
    lines = [
        f"machine   {machine.platform} {machine.arch}, {machine.cores} cores, {size(machine.memory)}, {cards}",
        f"model     {facts.id}: {', '.join(facts.architectures) or 'architecture unknown'}, "
        f"{amount(facts.parameters)} parameters, {size(facts.weight_bytes)} on disk, {facts.source}",
        "",
    ]
    for step in plan.steps:
        lines.append(f"{step.label:<9} {step.plugin}" + _why(plan, step.label, step.plugin))
        lines += [
            f"{'':<12}{verdict.plugin}: {verdict.reason}"
            for verdict in plan.verdicts
            if verdict.label == step.label and verdict.plugin != step.plugin
        ]
    lines += [f"{'observer':<9} {plugin}" for plugin in dict.fromkeys(plugin for plugin, _ in plan.observers)]
    if plan.decisions:
        lines += ["", *(f"{d.key} = {literal(d.value)}: {d.reason}" for d in plan.decisions)]
    lines += [f"note: {note}" for note in plan.notes]
    if isinstance(plan, Training):
        lines += ["", *describe_estimate(plan.estimate)]
    if isinstance(plan, Training) and not ran:
        lines.append("tokens, steps, disk and the measured peak are unknown until `forge run --dry-run`")
    return "\n".join(lines)


def _why(plan: Plan, label: str, plugin: str) -> str:
    reason = next((v.reason for v in plan.verdicts if v.label == label and v.plugin == plugin), None)
    return f"  ({reason})" if reason else ""


def turned_down(plan: Plan) -> dict[str, str]:
    """Return the plugins that were not taken for any stage, each with its first reason; the plan has all of them.

    A plugin that is for another kind of job altogether is left out.
    """
    taken = {step.plugin for step in plan.steps}
    first: dict[str, Verdict] = {}
    for verdict in plan.verdicts:
        if verdict.plugin not in taken and (verdict.plugin not in first or verdict.label == Stage.LOAD):
            first[verdict.plugin] = verdict
    against = Against.ABILITY
    others = {verdict.plugin for verdict in plan.verdicts if (verdict.label, verdict.against) == (Stage.TRAIN, against)}
    return {
        name: verdict.reason
        for name, verdict in first.items()
        if verdict.against is not against and not (name in others and verdict.against is Against.PROBE)
    }
