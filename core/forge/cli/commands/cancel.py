"""``forge cancel``: end a run that was sent elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.cli.common import run_argument, runs_option
from forge.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="cancel")
@run_argument
@runs_option
def command(run: str, runs_dir: Path) -> None:
    """End RUN, which was sent elsewhere; a run of this machine ends by Ctrl-C."""
    from forge.discovery.discover import discover
    from forge.disk.folder import RunFolder
    from forge.parent.sent import Sent

    sent = Sent(RunFolder.find(run, runs_dir, sent=True), discover())
    status = sent.cancel()
    say(f"{sent.ticket.target} {sent.ticket.id}: {status.state}{f' ({status.about})' if status.about else ''}")
