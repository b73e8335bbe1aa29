"""What a reward function's parameters say it needs: from the function itself, or from its source without running it.

Planning must not run a user's file, so it reads the parameters with :mod:`ast`; the worker has the function. Both end
in the same :class:`Signature`, which is checked by the same rules.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import did_you_mean, nearest

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Collection, Mapping


GIVEN = frozenset(
    {
        "prompts",
        "completions",
        "completion_ids",
        "trainer_state",
        "log_extra",
        "log_metric",
        "environments",
    }
)
"""Parameters that the trainer fills; all others are columns or ``args``."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a reward function.

    Attributes:
        required: Names without a default.
        optional: Names with one.
        any: Whether it takes any further keyword.
        positional: Names that cannot be given as keywords.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    any: bool = False
    positional: tuple[str, ...] = ()

    def columns(self, args: Collection[str]) -> tuple[str, ...]:
        """Return the columns that the rows must have: what nobody else fills and has no default."""
        return tuple(name for name in self.required if name not in GIVEN and name not in args)

    def select(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the values that the function takes."""
        if self.any:
            return dict(values)
        return {name: value for name, value in values.items() if name in self.required or name in self.optional}

    def faults(self, args: Collection[str]) -> list[tuple[str, str | None]]:
        """Return what is wrong with the function itself, as pairs of what and what to do."""
        found: list[tuple[str, str | None]] = []
        if self.positional:
            named = ", ".join(self.positional)
            found.append((f"takes {named} by position only", "remove the / from its parameters"))
        if "completions" not in {*self.required, *self.optional, *self.positional} and not self.any:
            near = nearest("completions", [*self.required, *self.optional])
            new = "write it as def f(*, prompts, completions, **columns)"
            found.append(("takes no completions", f"rename {near} to completions" if near else new))
        if taken := sorted(GIVEN.intersection(args)):
            found.append((f"gets {', '.join(taken)} from the trainer", "remove it from args"))
        return found

    def unknown(self, args: Collection[str]) -> list[tuple[str, str]]:
        """Return the ``args`` that the function does not take, each with what to do."""
        if self.any:
            return []
        known = [name for name in (*self.required, *self.optional) if name not in GIVEN]
        return [
            (name, did_you_mean(name, known, f"its parameters are {', '.join(known)}" if known else "it takes none"))
            for name in args
            if name not in known and name not in GIVEN
        ]


def of_function(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function. Raises :class:`ValueError` for one that does not tell (some of C)."""
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    named = [each for each in parameters if each.kind in {kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY}]
    return Signature(
        required=tuple(each.name for each in named if each.default is each.empty),
        optional=tuple(each.name for each in named if each.default is not each.empty),
        any=any(each.kind is kinds.VAR_KEYWORD for each in parameters),
        positional=tuple(
            each.name for each in parameters if each.kind is kinds.POSITIONAL_ONLY and each.default is each.empty
        ),
    )


def of_source(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    """Return the signature that a definition has."""
    plain, lone = node.args.args, node.args.posonlyargs
    defaults = len(node.args.defaults)
    free = max(len(plain) - defaults, 0)
    pairs = list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    return Signature(
        required=tuple([each.arg for each in plain[:free]] + [each.arg for each, value in pairs if value is None]),
        optional=tuple([each.arg for each in plain[free:]] + [each.arg for each, value in pairs if value is not None]),
        any=node.args.kwarg is not None,
        positional=tuple(each.arg for each in lone[: len(lone) + len(plain) - defaults]),
    )
