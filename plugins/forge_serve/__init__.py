"""The plugin ``serve``: start trainings and watch them, in a browser, by REST, or from a queue in a terminal.

It is a view of files and owns no training: each runs in processes of its own, which outlive the server, and whatever is
shown is read from run folders and from the queue's folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Command, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUIRES = ("starlette>=0.40", "uvicorn>=0.30")
"""What ``forge serve`` needs to be installed; ``forge queue`` needs nothing."""


@hookimpl
def forge_commands() -> Iterable[Command]:
    """Bring ``forge serve`` and ``forge queue``."""
    yield Command("serve", "Start trainings and watch them in a browser or by REST.", "forge_serve.command:command")
    yield Command("queue", "Train one job after the other.", "forge_serve.queue.command:command")
