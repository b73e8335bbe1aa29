"""Looking for a reward function in a Python file without running it."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forge_huggingface.functions.find import Kind


@dataclass(frozen=True, slots=True)
class Source:
    """What a module's source binds at its top level.

    Attributes:
        functions: The functions it defines.
        classes: The classes it defines.
        others: Names that it imports or assigns: whatever they are, they are there.
        open: Whether there may be more names than can be seen (``from … import *``).
    """

    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef]
    classes: dict[str, ast.ClassDef]
    others: frozenset[str]
    open: bool

    def named(self, kind: Kind) -> list[str]:
        """Return the functions, or the classes, that do not begin with an underscore."""
        return [name for name in (self.functions if kind == "function" else self.classes) if not name.startswith("_")]


def read(path: Path) -> Source:
    """Read a file. Raises :class:`OSError`, :class:`SyntaxError`, or :class:`ValueError` if it is no text."""
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    classes: dict[str, ast.ClassDef] = {}
    others: set[str] = set()
    unseen = False
    for node in _statements(ast.parse(path.read_bytes(), str(path)).body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.decorator_list:  # what a decorator returns may take other parameters
                others.add(node.name)
            else:
                functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            classes[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            unseen = unseen or any(alias.name == "*" for alias in node.names)
            others |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            others |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
    return Source(functions, classes, frozenset(others), unseen)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those inside ``if``, ``try`` and ``with`` among them."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, ()))
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)
        else:
            yield node


def module_file(module: str) -> Path | None:
    """Return the source file of an installed module, without importing anything; None if that cannot be told.

    Raises:
        ModuleNotFoundError: The package is not installed, or has no such module.
    """
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a top level, this imports nothing
    except (ValueError, ImportError):
        spec = None
    if spec is None:
        raise ModuleNotFoundError(top)
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in inner[:-1]:
        folders = [folder / part for folder in folders]
    for folder in folders:
        for path in (folder / f"{inner[-1]}.py", folder / inner[-1] / "__init__.py"):
            if path.is_file():
                return path
    if spec.submodule_search_locations is None:  # a single file, which has no modules inside
        raise ModuleNotFoundError(module)
    return None  # compiled, or made by an import hook
