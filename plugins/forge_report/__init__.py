"""The plugin ``report``: one page about a run that needs nothing but itself.

No script, no network, no fonts: it can be mailed, kept beside the weights, printed, and opened in ten years. What it
shows of models and files is escaped in one place (:mod:`forge_report.markup`), and the page forbids itself to load
anything. It reads only the files of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Command, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def forge_commands() -> Iterable[Command]:
    """Bring ``forge report``."""
    yield Command("report", "Write a page about a run: curves, plan, samples.", "forge_report.command:command")
