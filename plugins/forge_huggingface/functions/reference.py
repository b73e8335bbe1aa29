"""What a job calls a function: a name of forge's own, ``./file.py:function`` or ``module:function``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from forge.api import function_of


@dataclass(frozen=True, slots=True)
class Reference:
    """What ``use`` refers to.

    Attributes:
        kind: ``"builtin"``, ``"module"`` or ``"file"``.
        place: The built-in's name, the module, or the path as it is written.
        function: The function's name; empty for a built-in, or where it is missing.
    """

    kind: Literal["builtin", "module", "file"]
    place: str
    function: str


def reference(use: str) -> Reference:
    """Read ``use``. Whatever has no colon and does not look like a file is the name of a built-in, or of a plugin's."""
    use = function_of(use) or use
    place, _, function = use.rpartition(":")
    if not place or function.endswith(".py") or "/" in function or "\\" in function:
        place, function = use, ""  # no colon, or only that of a Windows drive
    if place.endswith(".py"):
        return Reference("file", place, function)
    return Reference("module" if function or "." in place else "builtin", place, function)
