"""The rewards that forge brings, by name.

Each is a module with ``Args``, the pydantic model of its settings, whose method ``columns`` names the columns that it
reads; with ``score(args, completions, columns)``; where a row's columns can be wrong in themselves, with
``row_fault(args, row)``; and, where only the machine at hand can tell whether it works, with ``prepare(args)``. None is
imported before a job names it, and what a module needs beyond the standard library only when it scores.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Builtin:
    """A reward that forge brings.

    Attributes:
        module: Name of its module in this package.
        summary: What it scores.
        requires_dist: A PEP 508 requirement beyond those of the plugin.
        install: What to give pip for that.
    """

    module: str
    summary: str
    requires_dist: str | None = None
    install: str | None = None

    def load(self) -> Any:
        """Import the module."""
        return importlib.import_module(f"{__package__}.{self.module}")


BUILTINS: Mapping[str, Builtin] = {
    "choice": Builtin("choice", "1 if the completion chooses the right one of several options, else 0"),
    "code-tests": Builtin(
        "code_tests", "1 if the Python program in the completion passes all tests, else 0; or the share that it passes"
    ),
    "json-schema": Builtin(
        "json_schema", "1 if the completion is JSON that fits a schema, else 0", "jsonschema>=4.20", "jsonschema"
    ),
    "length": Builtin("length", "1 within a range of lengths, falling to 0 outside"),
    "math-equal": Builtin(
        "math_equal",
        "1 if the final answer equals the row's, as mathematics, else 0",
        "math-verify>=0.9",
        '"math-verify[antlr4-13-2]"',
    ),
    "regex": Builtin("regex", "1 if a regular expression matches, else 0"),
}
"""forge's own rewards by name."""
