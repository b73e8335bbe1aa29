"""``forge export``: make exports of a trained run, whenever and wherever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from forge.cli.common import json_option, run_argument, runs_option, set_option, this_machine
from forge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from forge.job.read import Change


@click.command(name="export")
@run_argument
@click.option("--format", "format_", help="Export in this format, instead of what the job says.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="With --format: a file of this type; may repeat.")
@click.option("--push-to-hub", metavar="USER/NAME", help="Upload it to this hub repository.")
@click.option("--public", is_flag=True, help="Make a new repository public; without this it is private.")
@set_option
@runs_option
@json_option
def command(
    run: str,
    format_: str | None,
    types: tuple[str, ...],
    push_to_hub: str | None,
    public: bool,
    changes: list[Change],
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Make the exports of RUN again, or another one with --format.

    Nothing of the training backend is needed. Options of a format are given as --set export.0.KEY=VALUE.
    """
    from forge.cli.console import Console
    from forge.discovery.discover import discover
    from forge.discovery.keys import PluginKeys
    from forge.disk.folder import RunFolder
    from forge.job.job import load_job
    from forge.job.read import Change
    from forge.parent.after import export

    folder, machine = RunFolder.find(run, runs_dir), this_machine(pretend=False)
    catalogue = discover(code=folder.code())
    there = load_job(folder.plan().job).export
    chosen = list(range(len(there)))
    if format_:
        # An export that the job does not have comes after those that it has.
        place = next((index for index, table in enumerate(there) if table.format == format_), len(there))
        given: dict[str, Any] = {"format": format_}
        if types:
            given["types"] = list(types)
        if push_to_hub:
            given |= {"push_to_hub": push_to_hub, "private": not public}
        changes = [*changes, *(Change(f"export.{place}.{key}", value) for key, value in given.items())]
        chosen = [place]
    elif push_to_hub or public or types:
        why = "the job may have several exports"
        raise UsageError("--push-to-hub, --public and --type need --format", why, "name one: --format merged")
    job = folder.job_file(PluginKeys(catalogue, machine), changes).job
    if not chosen:
        raise UsageError("the job has no [[export]]", do="name a format: --format merged")
    with Console(as_json=as_json, log=folder.log) as console:
        for index in chosen:
            export(folder, job, index, catalogue, machine, console.show)
