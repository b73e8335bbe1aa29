"""Checks of ``forge doctor`` that plugins bring, by ``forge_checks``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """A check of ``forge doctor``: whether what a plugin needs on a machine is as it should be there.

    Attributes:
        name: Lower-case letters, digits and dashes.
        help: What it looks at, in one line, for ``forge plugins``.
        impl: ``"package.module:function"`` of ``(machine)`` that yields a :class:`~forge.api.Finding` for each thing to
            tell. Nothing, or notes alone, is a machine on which the plugin works. It is light, and changes nothing.

    Example:
        >>> Check("licence", "The licence of the lathe.", "forge_lathe.checks:licence").name
        'licence'
    """

    name: str
    help: str
    impl: str
