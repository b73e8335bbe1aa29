"""``forge plan``: the choices and their reasons, from files alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.budget import describe as describe_estimate
from forge.cli.common import amount, job_argument, json_option, print_json, set_option, situation, size

if TYPE_CHECKING:
    from pathlib import Path

    from forge.plan import Plan


@click.command(name="plan")
@job_argument
@set_option
@json_option
def command(job: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show which plugins would run JOB, why, and what is known about the model.

    Imports neither torch nor any model. FORGE_MACHINE plans for another machine: the path of a machine's JSON, or one
    of the names that `forge doctor --machines` lists.
    """
    from forge.facts import resolve
    from forge.plan import make_plan

    here = situation(job, overrides, pretend=True)
    facts = resolve(here.file.job.model.id, here.file.job.model.revision, here.file.job.folder)
    plan = make_plan(here.file, here.catalogue, here.machine, facts)
    if as_json:
        print_json(plan.to_json())
    else:
        click.echo(describe(plan))


def describe(plan: Plan) -> str:
    """Return a plan as text for people."""
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
    if plan.decisions:
        lines += ["", *(f"{d.key} = {_toml(d.value)}: {d.reason}" for d in plan.decisions)]
    lines += [f"note: {note}" for note in plan.notes]
    lines += ["", *describe_estimate(plan.estimate)]
    lines.append("tokens, steps, disk and the measured peak are unknown until `forge run --dry-run`")
    return "\n".join(lines)


def _why(plan: Plan, label: str, plugin: str) -> str:
    reason = next((v.reason for v in plan.verdicts if v.label == label and v.plugin == plugin), None)
    return f"  ({reason})" if reason else ""


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
