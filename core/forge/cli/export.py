"""``forge export``: make exports of a trained run, whenever and wherever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.cli.common import json_option, run_argument, runs_option, set_option, this_machine

if TYPE_CHECKING:
    from pathlib import Path


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
    overrides: tuple[str, ...],
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Make the exports of RUN again, or another one with --format.

    Nothing of the training backend is needed. Options of a format are given as --set export.0.KEY=VALUE.
    """
    import json

    from forge.console import Console
    from forge.discovery import discover
    from forge.errors import UsageError
    from forge.folder import RunFolder
    from forge.jobfile import load_job, parse
    from forge.parent import export

    folder, catalogue, machine = RunFolder.find(run, runs_dir), discover(), this_machine(pretend=False)
    plan = folder.plan()
    stored = load_job(plan.job)
    changes = [*plan.overrides, *overrides]
    if format_:
        # An export that the job does not have comes after those that it has.
        place = next((i for i, table in enumerate(stored.export) if table.format == format_), len(stored.export))
        changes += [f'export.{place}.format="{format_}"']
        if types:
            changes.append(f"export.{place}.types=[{', '.join(json.dumps(name) for name in types)}]")
        if push_to_hub:
            private = str(not public).lower()
            changes += [f'export.{place}.push_to_hub="{push_to_hub}"', f"export.{place}.private={private}"]
        chosen = [place]
    elif push_to_hub or public or types:
        why = "the job may have several exports"
        raise UsageError("--push-to-hub, --public and --type need --format", why, "name one: --format merged")
    else:
        chosen = list(range(len(stored.export)))
    text = (folder.path / "job.toml").read_text(encoding="utf-8")
    job = parse(text, str(folder.path / "job.toml"), stored.folder, catalogue, changes).job
    if not chosen:
        raise UsageError("the job has no [[export]]", do="name a format: --format merged")
    with Console(as_json=as_json) as console:
        for index in chosen:
            export(folder, job, index, catalogue, machine, console.show)
