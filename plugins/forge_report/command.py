"""``forge report RUN``: the page of a run. What writes it is imported when it is written: `--help` needs no jinja2."""

from __future__ import annotations

import json
from pathlib import Path

import click

from forge.text.visible import visible


@click.command(name="report")
@click.argument("run", metavar="RUN")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page's file; report.html in the run's folder if unset."
)
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    envvar="FORGE_RUNS",
    show_envvar=True,
    show_default=True,
    help="Folder of all runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(run: str, out: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Write a page about RUN (curves, plan, samples) and print its path.

    The page needs nothing but itself: no script, no network. It is made from the run's files, also while it trains.
    """
    from forge.disk.folder import RunFolder
    from forge_report.page import write_report

    page = write_report(RunFolder.find(run, runs_dir), out)
    click.echo(json.dumps({"html": str(page)}, indent=2) if as_json else visible(str(page)))
