"""``forge resume``: go on with a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.cli.common import json_option, run_argument, runs_option, set_option, this_machine

if TYPE_CHECKING:
    from pathlib import Path

    from forge.job.read import Change


@click.command(name="resume")
@run_argument
@runs_option
@set_option
@click.option("--processes", type=click.IntRange(1), help="Go on in so many processes, where that is exact.")
@json_option
def command(run: str, runs_dir: Path, changes: list[Change], processes: int | None, as_json: bool) -> None:
    """Go on with RUN (a folder, `name/id`, an id or a name) from its newest whole checkpoint.

    Order of rows, optimizer, schedule and random numbers continue as if nothing had happened. A run whose job, data,
    base model or code has changed since is refused, with the difference; of a finished one the difference is told.
    Exports that are missing are made. With --set it says why a run cannot go on otherwise than it began, and what
    trains on from what it left.
    """
    from forge.cli.console import Console
    from forge.discovery.discover import discover
    from forge.disk.folder import RunFolder
    from forge.parent.resume import refuse_changes, resume

    folder = RunFolder.find(run, runs_dir)
    refuse_changes(folder, changes)
    with Console(as_json=as_json) as console:
        catalogue, machine = discover(code=folder.code()), this_machine(pretend=False)
        resume(folder, catalogue, machine, console.show, ready=console.begin, processes=processes)
        console.finish(folder)
