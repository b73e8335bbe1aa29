"""``forge queue``: jobs one after the other, with and without a server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import click

from forge.text.visible import visible

runs_option = click.option(
    "--runs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    envvar="FORGE_RUNS",
    show_envvar=True,
    show_default=True,
    help="Folder of all runs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(name="queue", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Train one job after the other: a queue in files, below --runs-dir. Without a command it is listed.

    `forge serve` works on the same queue; without it, `forge queue run` does. A training goes on when either ends.
    """
    if context.invoked_subcommand is None:
        show.main([], prog_name="forge queue list", standalone_mode=False)


@command.command(name="add")
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key; may be given often.")
@click.option("--dry-run", is_flag=True, help="Do everything but train.")
@runs_option
@json_option
def add(job: Path, changes: tuple[str, ...], dry_run: bool, runs_dir: Path, as_json: bool) -> None:
    """Put JOB into the queue, once `forge plan` finds nothing wrong with it. The queue keeps a copy of it."""
    from forge_serve.queue.shelf import Shelf, listing

    options = [f"--set={change}" for change in changes]
    planning = [sys.executable, "-P", "-m", "forge", "plan", str(job), *options, "--json"]
    planned = subprocess.run(planning, stdout=subprocess.PIPE, check=False)
    if planned.returncode:
        if as_json:
            click.echo(planned.stdout.decode("utf-8", "replace"), nl=False)
        raise click.exceptions.Exit(planned.returncode)
    name = re.sub(r"[^\w.-]+", "-", job.name.removesuffix(".toml")).strip(".-") or "job"
    name = json.loads(planned.stdout)["job"]["name"] or name
    shelf = Shelf(runs_dir)
    kind = "dry-run" if dry_run else "run"
    text = job.read_text(encoding="utf-8-sig")
    place = shelf.add(kind, name, job=text, folder=job.parent.resolve(), options=options)
    line = next(line for line in listing(shelf) if line["id"] == place.entry.id)
    if as_json:
        click.echo(json.dumps(line, indent=2))
    else:
        click.echo(f"{place.entry.id}  {visible(name)}: {line['state']}, position {line['position']}")


@command.command(name="list")
@runs_option
@json_option
def show(runs_dir: Path, as_json: bool) -> None:
    """List what runs, what waits, and what became of the rest."""
    from forge_serve.queue.shelf import Shelf, listing

    lines = listing(Shelf(runs_dir))
    if as_json:
        click.echo(json.dumps(lines, indent=2, ensure_ascii=False))
        return
    if not lines:
        click.echo(f"nothing is in the queue of {runs_dir}; put a job into it with `forge queue add JOB`")
    for line in lines:
        error = line["error"]
        parts = [str(line["id"]), str(line["state"]), str(line["kind"]), str(line["name"])]
        parts += [f"GPUs {line['devices']}"] if line["devices"] is not None else []
        parts += [str(line["folder"])] if line["folder"] else []
        parts += [str(error.get("what"))] if isinstance(error, dict) else []
        click.echo(visible("  ".join(parts)))


@command.command(name="rm")
@click.argument("entry", metavar="ID")
@runs_option
def remove(entry: str, runs_dir: Path) -> None:
    """Remove the entry ID, or the one that begins so. What runs is stopped by `forge queue stop`."""
    from forge_serve.queue.shelf import Shelf

    shelf = Shelf(runs_dir)
    place = shelf.find(entry)
    shelf.remove(place)
    click.echo(f"{place.entry.id}  removed")


@command.command(name="stop")
@click.argument("entry", metavar="ID")
@click.option("--now", is_flag=True, help="Do not wait for the step to end, and save nothing.")
@runs_option
def stop(entry: str, now: bool, runs_dir: Path) -> None:
    """Stop the entry ID, as Ctrl-C does: it saves a checkpoint, and `forge resume` goes on."""
    from forge_serve.queue.shelf import Shelf

    shelf = Shelf(runs_dir)
    place = shelf.find(entry)
    shelf.ask_to_stop(place, now=now)
    click.echo(f"{place.entry.id}  {'ends at once' if now else 'stops at the end of a step'}")


@command.command(name="run")
@click.option("--slots", default="", metavar="GPUS", help='Sets of GPUs, one job each: "0;1" or "0,1;2,3".')
@click.option("--until-empty", is_flag=True, help="End when nothing waits and nothing runs.")
@click.option("--pause-on-failure", is_flag=True, help="Begin nothing more once an entry has failed.")
@click.option("--wait", is_flag=True, help="Begin nothing while a training that is not of the queue runs here.")
@runs_option
def run(slots: str, until_empty: bool, pause_on_failure: bool, wait: bool, runs_dir: Path) -> None:
    """Train what waits, one entry a slot. Ctrl-C ends this command; what runs goes on, and is found again."""
    from forge.api import RunError
    from forge_serve.queue.dispatcher import Dispatcher, slots_of
    from forge_serve.queue.shelf import Shelf

    shelf = Shelf(runs_dir)
    dispatcher = Dispatcher(shelf, slots_of(slots), pause_on_failure=pause_on_failure, wait=wait)
    if not dispatcher.take():
        why = "another `forge queue run` or `forge serve` works on it"
        raise RunError(f"the queue of {runs_dir} is in use", why, "let it, or end it first")
    shelf.go_on()
    going = {place.entry.id for place in shelf.going()}
    for name in sorted(going):
        click.echo(f"{name}  runs, as found")
    try:
        while True:
            started = dispatcher.step()
            for place in started:
                going.add(place.entry.id)
                click.echo(f"{place.entry.id}  started: {visible(place.entry.name)}")
            there = {place.entry.id: place for place in shelf.places()}
            for name in sorted(going):
                state = there[name].state() if name in there else "removed"
                if state != "running":
                    going.discard(name)
                    click.echo(f"{name}  {state}")
            if until_empty and not going and (shelf.paused() or not shelf.waiting()):
                return
            time.sleep(0.3)
    except KeyboardInterrupt:
        if going:
            click.echo(f"what runs goes on: {', '.join(sorted(going))}", err=True)
    finally:
        dispatcher.close()
