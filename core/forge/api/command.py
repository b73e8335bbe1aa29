"""Commands that plugins bring: ``forge <name>``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a plugin.

    Attributes:
        name: What is typed after ``forge``: lower-case letters, digits and dashes. A command of forge's own wins.
        help: What it does, in one line, for ``forge plugins``.
        impl: ``"package.module:name"`` of a :class:`click.Command`, imported when it is called, and not before.

    Example:
        >>> from forge.api import hookimpl
        >>> @hookimpl
        ... def forge_commands():
        ...     yield Command("zip", "Pack a run.", "forge_zip.command:pack")
        >>> [command.name for command in forge_commands()]
        ['zip']
    """

    name: str
    help: str
    impl: str
