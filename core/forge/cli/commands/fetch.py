"""``forge fetch``: bring what a run made where it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.cli.common import run_argument, runs_option
from forge.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="fetch")
@run_argument
@runs_option
def command(run: str, runs_dir: Path) -> None:
    """Bring what RUN has made where it was sent into its folder here, also while it trains."""
    from forge.discovery.discover import discover
    from forge.disk.folder import RunFolder
    from forge.errors import RunError
    from forge.parent.sent import Sent

    folder = RunFolder.find(run, runs_dir, sent=True)
    sent = Sent(folder, discover())
    sent.fetch()
    if not (folder.path / "plan.json").exists():
        status = sent.status()
        why = f"{sent.ticket.target} {sent.ticket.id} is {status.state}{f' ({status.about})' if status.about else ''}"
        raise RunError(f"{folder.path} has made nothing yet", why, f"`forge logs {folder.path}` shows what it prints")
    say(f"{folder.path}: {folder.state()}")
