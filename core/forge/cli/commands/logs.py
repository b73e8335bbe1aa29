"""``forge logs``: what a run has told, here or where it was sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from forge.cli.common import json_option, run_argument, runs_option
from forge.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from forge.disk.folder import RunFolder


@click.command(name="logs")
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@runs_option
@json_option
def command(run: str, follow: bool, runs_dir: Path, as_json: bool) -> None:
    """Print what RUN has told: of one that was sent elsewhere, all that its target printed.

    With --json, the events of a run whose folder is here, one a line.
    """
    from forge.disk.folder import RunFolder
    from forge.errors import RunError

    folder = RunFolder.find(run, runs_dir, sent=True)
    if folder.ticket() is None or (as_json and folder.events.exists()):
        _events(folder, follow=follow, as_json=as_json)
        return
    if as_json:
        why = "what its target prints is no JSON"
        raise RunError(f"the events of {folder.path} are not here yet", why, f"`forge fetch {folder.path}` brings them")
    from forge.discovery.discover import discover
    from forge.parent.sent import Sent

    for line in Sent(folder, discover()).logs(follow=follow):
        say(line)


def _events(folder: RunFolder, *, follow: bool, as_json: bool) -> None:
    from forge.api.event import Failed, Stopped
    from forge.cli.console import Console
    from forge.disk.events import Follower
    from forge.errors import from_json

    events = Follower(folder.events, position=0)
    with Console(as_json=as_json, log=folder.log) as console:
        while True:
            running = follow and folder.busy()  # before the last look, which then misses nothing
            for event in events.poll():
                console.show(event)
                if isinstance(event, Failed) and not as_json:  # `forge run` prints these at its own end
                    console.line(("error", "red"), f"   {from_json(event.error)}")
                elif isinstance(event, Stopped) and not as_json:
                    console.line(event.message)
            if not running:
                return
            time.sleep(0.2)
