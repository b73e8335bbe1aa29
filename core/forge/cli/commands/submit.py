"""``forge submit``: send a job to where it is to run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from forge.cli.common import job_argument, json_option, print_json, runs_option, set_option
from forge.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge.api.submitter import Submitter
    from forge.cli.common import Situation
    from forge.job.read import Change


@click.command(name="submit")
@job_argument
@set_option
@click.option("--to", "target", required=True, metavar="TARGET", help="Where: slurm, hf-jobs, skypilot, or a plugin's.")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the target for this time, before [submit.TARGET] of your config.toml. May be given often.",
)
@click.option("--dry-run", is_flag=True, help="Write down and print what would be sent, and send nothing.")
@runs_option
@json_option
def command(
    job: Path,
    changes: list[Change],
    target: str,
    options: Sequence[str],
    dry_run: bool,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Send JOB to a cluster or a cloud, where `forge run` trains it.

    Everything is checked first, and planned for the machine that it will run on where that is known: FORGE_MACHINE, the
    option `machine`, or what the target says. What is sent lies in the run's folder, in submit/. `forge runs` shows how
    it is doing, `forge logs` what it prints, `forge fetch` brings what it made, and `forge cancel` ends it.
    """
    from forge.parent.submit import prepare, send

    here, submitter, given = sending(job, changes, target, options)
    made = prepare(here.file, here.catalogue, here.machine, runs_dir, submitter, target, dry=dry_run)
    for note in made.notes:
        say(f"note: {note}", err=True)
    if dry_run:
        say(made.shown.read_text(encoding="utf-8"), nl=False)
        say(f"nothing was sent; this is {made.shown}", err=True)
        return
    ticket = send(made, submitter, target, given)
    run = made.bundle.name
    if as_json:
        print_json({"run": run, "folder": str(made.folder.path), "id": ticket.id, "address": ticket.address})
        return
    say(f"sent    {target} {ticket.id}{f': {ticket.address}' if ticket.address else ''}")
    say(f"run     {made.folder.path}")
    say(f"        look at it with `forge runs {run}` and `forge logs {run} --follow`, end it with `forge cancel {run}`")


def sending(
    job: Path, changes: Sequence[Change], target: str, options: Sequence[str]
) -> tuple[Situation, Submitter[Any], dict[str, Any]]:
    """Read a job that is to be sent: what there is, the target, and its options."""
    import os

    from forge.cli.common import situation
    from forge.cli.config import user_wishes
    from forge.discovery.discover import discover
    from forge.job.read import change_of
    from forge.machine.presets import current
    from forge.parent.submit import submitter_of

    wishes = user_wishes()
    given = dict(wishes.submit.get(target, {}))
    given |= {change.key: change.value for change in (change_of(text, "--option") for text in options)}
    machine = given.pop("machine", None)
    source = "--option" if options else str(wishes.path)
    submitter = submitter_of(discover(), target, given, source)
    preset = os.environ.get("FORGE_MACHINE") or machine or submitter.machine()
    here = situation(job, changes, pretend=True)
    if preset is None:
        what = "forge does not know the machine that this will run on, and planned for this one"
        say(f"note: {what}; --option machine=linux-h100 says another", err=True)
        return here, submitter, given
    return replace(here, machine=current({"FORGE_MACHINE": str(preset)})), submitter, given
