"""The plugin ``migrate``: a job from the configuration of another tool, that trains the same.

Every default of the other tool that is not forge's is written out; what forge cannot do is an error, and what changes
nothing is said. Each tool has a module in :mod:`forge_migrate.tools`, which reads its keys and no other's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Command, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def forge_commands() -> Iterable[Command]:
    """Bring ``forge migrate``."""
    yield Command("migrate", "Write a job from another tool's configuration.", "forge_migrate.command:command")
