"""``forge plan``: the choices and their reasons, from files alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.cli.common import job_argument, job_dir_option, json_option, print_json, set_option, situation
from forge.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from forge.job.read import Change


@click.command(name="plan")
@job_argument
@set_option
@job_dir_option
@click.option("--all", "every", is_flag=True, help="Tell of every plugin, also of those that never came into question.")
@json_option
def command(job: Path, changes: list[Change], job_dir: Path | None, every: bool, as_json: bool) -> None:
    """Show which plugins would run JOB, why, and what is known about the model.

    Imports neither torch nor any model. FORGE_MACHINE plans for another machine: the path of a machine's JSON, or one
    of the names that `forge doctor --machines` lists.
    """
    from forge.discovery.describe import describe_model
    from forge.planning.planner import make_plan
    from forge.text.plan import describe

    here = situation(job, changes, pretend=True, folder=job_dir)
    model = here.file.job.model
    facts = describe_model(here.catalogue, model.id, model.revision, here.file.job.folder)
    plan = make_plan(here.file, here.catalogue, here.machine, facts, every=every)
    if as_json:
        print_json(plan.to_json())
    else:
        say(describe(plan))
