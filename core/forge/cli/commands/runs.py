"""``forge runs``: what has been run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forge.cli import plugin_command
from forge.cli.common import json_option, print_json, runs_option
from forge.cli.terminal import say, shown
from forge.errors import ForgeError, UsageError
from forge.text.units import size

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder

IN_RUN = "RUN/report.html"
"""The value of ``--html`` where no file is named."""


@click.command(name="runs")
@click.argument("run", metavar="[RUN]", required=False)
@runs_option
@json_option
@click.option(
    "--html",
    is_flag=False,
    flag_value=IN_RUN,
    metavar="[FILE]",
    help="Short for `forge report RUN`: a page about RUN, in FILE or in its folder.",
)
def command(run: str | None, runs_dir: Path, as_json: bool, html: str | None) -> None:
    """List the runs below --runs-dir, or show one RUN: its plan, state, numbers and exports."""
    from forge.disk.folder import RunFolder

    if html is not None:
        if run is None:
            raise UsageError("--html needs a run", "none is named before it", "write `forge runs RUN --html`")
        report = plugin_command("report")
        if report is None:
            why = "no installed plugin brings `forge report`"
            raise UsageError("there is no page to write", why, "see `forge plugins`; FORGE_PLUGINS may hide report")
        arguments = [run, "--runs-dir", str(runs_dir), *([] if html == IN_RUN else ["--out", html])]
        report.main([*arguments, *(["--json"] if as_json else [])], prog_name="forge report", standalone_mode=False)
        return
    if run is None:
        found = []
        for folder in RunFolder.below(runs_dir):
            try:
                found.append(_line(folder))
            except (ForgeError, OSError) as error:  # of another forge, or damaged: the others are still to be seen
                say(f"{folder.path.parent.name}/{folder.path.name}: {error}", err=True)
        if as_json:
            print_json(found)
        elif not found:
            say(f"no runs in {runs_dir}; begin one with `forge run JOB`")
        else:
            _list(found)
        return
    told = _whole(RunFolder.find(run, runs_dir, sent=True))
    if as_json:
        print_json(told)
        return
    for key in ("folder", "state", "sent", "step", "of", "loss", "eval_loss", "checkpoint", "weights", "error"):
        if (value := told.get(key)) is not None:
            say(f"{key.replace('_', ' '):<12}{f'{value:.4f}' if isinstance(value, float) else value}")
    for line in told["speed"]:
        say(line)
    for export in told["exports"]:
        say(f"export      {export['format']}: {export['folder']} ({size(export['bytes'])})")
    say()
    say(told["plan"])


def _list(found: list[dict[str, Any]]) -> None:
    """Print the runs as a table, each with how far it is and what became of it."""
    from rich.table import Table
    from rich.text import Text

    from forge.cli.console import Console

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for line in found:
        parts = [
            f"step {line['step'] or 0}/{line['of']}" if line["of"] else None,
            f"loss {line['loss']:.4f}" if line["loss"] is not None else None,
            line["error"],
        ]
        said = "  ".join(part for part in (line["sent"], *parts) if part)
        table.add_row(*(Text(shown(cell)) for cell in (line["run"], line["state"], said)))
    Console().table(table)


def _line(folder: RunFolder) -> dict[str, Any]:
    from forge.disk.events import read_events

    step = of = loss = held_out = error = None
    for event in read_events(folder.events):
        if event["kind"] == "training":
            of = event.get("steps", of)
        elif event["kind"] in {"step", "progress", "checkpoint"}:
            step = event.get("step", step)
            loss = event["loss"] if isinstance(event.get("loss"), float) else loss
        elif event["kind"] == "eval":
            held_out = event.get("eval_loss", held_out)
        elif event["kind"] == "failed":
            told = event.get("error")
            error = str(told.get("what")) if isinstance(told, dict) else "failed"
        elif event["kind"] == "done":
            error = None
    name = f"{folder.path.parent.name}/{folder.path.name}"
    state, sent = _state(folder)
    return {
        "run": name,
        "state": state,
        "sent": sent,
        "step": step,
        "of": of,
        "loss": loss,
        "eval_loss": held_out,
        "error": error,
    }


def _state(folder: RunFolder) -> tuple[str, str | None]:
    """Return the state of a run, and what its target says of it if it was sent elsewhere."""
    ticket = folder.ticket()
    here = folder.state() if (folder.path / "plan.json").exists() else None
    if ticket is None:
        return here or "failed", None
    status = ticket.status
    if not status.over:
        from forge.discovery.discover import discover  # whoever has sent nothing does not pay for it
        from forge.parent.sent import Sent

        try:
            status = Sent(folder, discover()).status()
        except ForgeError as error:
            return here or "unknown", f"{ticket.target} {ticket.id}: {error}"
    told = f"{ticket.target} {ticket.id}{f': {status.about}' if status.about else ''}"
    # Of the end, the run's own files tell more than a queue does, and more than one that has forgotten it.
    known = here if status.over or status.state == "unknown" else None
    return known or status.state, told


def _whole(folder: RunFolder) -> dict[str, Any]:
    from forge.disk.checkpoints import newest_marked
    from forge.disk.events import read_events
    from forge.text.plan import describe
    from forge.text.speed import Times

    trained, checkpoint = folder.trained(), newest_marked(folder.checkpoints)
    exports = []
    for path, data in folder.exports():
        shown = {name: data.get(name) for name in ("format", "bytes", "url")}
        exports.append({"folder": str(path), **shown})
    return {
        **_line(folder),
        "folder": str(folder.path),
        "checkpoint": checkpoint.name if checkpoint else None,
        "weights": trained.weights if trained else None,
        "exports": exports,
        "speed": Times(read_events(folder.events)).lines,
        "plan": describe(folder.plan(), ran=trained is not None) if (folder.path / "plan.json").exists() else "",
    }
