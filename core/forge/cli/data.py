"""``forge data``: rows as the trainer gets them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from forge.cli.common import job_argument, json_option, print_json, set_option, situation


@click.command(name="data")
@job_argument
@click.option("--rows", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many rows to show.")
@click.option("--ids", is_flag=True, help="Show the token ids too.")
@set_option
@json_option
def command(job: Path, rows: int, ids: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show the first rows of JOB as the trainer gets them, with the tokens that are trained on marked.

    The model's weights are not loaded. What is counted is what would be trained: rows, tokens, rows dropped and why.
    """
    from forge.parent import run

    here = situation(job, overrides, pretend=False)
    temporary = Path(tempfile.mkdtemp(prefix="forge-data-"))
    try:
        folder = run(here.file, here.catalogue, here.machine, temporary, _warn, task="data", rows=rows)
        shown: dict[str, Any] = json.loads((folder.path / "preview.json").read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if as_json:
        print_json(shown)
        return
    for number, row in enumerate(shown["rows"], 1):
        origin = f" ({row['origin']})" if row.get("origin") else ""
        trained = row.get("supervised")
        click.secho(f"row {number}{origin}: {row['length']} tokens, {trained} trained on", bold=True)
        text = "".join(
            click.style(part["text"], fg="green") if part["supervised"] else click.style(part["text"], dim=True)
            for part in row["segments"]
        )
        plain = "".join(
            f"«{part['text']}»" if part["supervised"] else part["text"] for part in row["segments"]
        )
        click.echo(text if click.get_text_stream("stdout").isatty() else plain)
        if ids:
            click.echo(f"ids {row['ids']}")
        click.echo()
    for key, value in shown["summary"].items():
        click.echo(f"{key.replace('_', ' '):<18}{value if not isinstance(value, list) else ', '.join(map(str, value))}")


def _warn(event: dict[str, Any]) -> None:
    if event["kind"] == "warning":
        click.secho(f"warning: {event['message']}", fg="yellow", err=True)
