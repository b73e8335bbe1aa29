"""Every name that a docstring refers to exists, as far as the sources tell: nothing heavy is imported for it."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ROLE = re.compile(r":(func|class|mod|data|meth|attr|exc|obj|const):`([^`]*)`")
LIGHT = {"ast", "click", "collections", "pydantic", "subprocess", "logging", "pluggy", "pathlib"}
"""Packages of others that docstrings may refer to, and that are quick to import."""


def sources() -> dict[str, Path]:
    """Return every module of forge and its plugins, with its file."""
    found = {}
    for top in ("core", "plugins"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


class Scope(NamedTuple):
    """What a module or class defines, and where the names come from that it imports."""

    own: dict[str, ast.AST]
    imported: dict[str, str]
    bases: list[str]


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def scope(module: str, node: ast.AST) -> Scope:
    own: dict[str, ast.AST] = {}
    imported: dict[str, str] = {}
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for each in ast.walk(node) if isinstance(node, ast.Module) else node.body:  # type: ignore[attr-defined]
        if isinstance(each, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - each.level + 1]) if each.level else ""
            where = ".".join(filter(None, (above, each.module)))
            imported |= {alias.asname or alias.name: f"{where}.{alias.name}" for alias in each.names}
        elif isinstance(each, ast.Import):
            imported |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in each.names}
    for each in [*node.body, *(inner for one in node.body if isinstance(one, ast.If | ast.Try) for inner in one.body)]:  # type: ignore[attr-defined]
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own[each.name] = each
        elif isinstance(each, ast.Assign):
            names = [name.id for target in each.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            own |= dict.fromkeys(names, each)
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            own[each.target.id] = each
        if isinstance(node, ast.ClassDef) and isinstance(each, ast.FunctionDef) and each.name == "__init__":
            own |= {a.attr: a for a in ast.walk(each) if isinstance(a, ast.Attribute) and isinstance(a.ctx, ast.Store)}
    bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
    return Scope(own, imported, bases)


def exists(name: str) -> bool:
    """Whether a full name is one of a module, or of something in it."""
    if name in SOURCES:
        return True
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        if module in SOURCES:
            return within(module, tree(module), parts[length:])
    if parts[0] in LIGHT:
        for length in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:length]))
            except ImportError:
                continue
            return functools.reduce(lambda one, part: getattr(one, part, None), parts[length:], found) is not None
    return hasattr(builtins, name)


def within(module: str, node: ast.AST, names: list[str], depth: int = 0) -> bool:
    """Whether a module, or a class in it, has a name, and that one the next."""
    here, first, rest = scope(module, node), names[0], names[1:]
    if first in here.own:
        found = here.own[first]
        return not rest or (isinstance(found, ast.ClassDef) and within(module, found, rest, depth))
    if isinstance(node, ast.Module) and first in here.imported and depth < 5:
        return exists(".".join([here.imported[first], *rest]))
    outer = scope(module, tree(module))
    for base in here.bases:
        above = outer.own.get(base)
        if isinstance(above, ast.ClassDef) and within(module, above, names, depth + 1):
            return True
        if base in outer.imported and exists(".".join([outer.imported[base], *names])):
            return True
    return False


def resolves(module: str, owners: list[ast.AST], target: str) -> bool:
    """Whether a role's target names something, seen from a docstring of a module, within some classes."""
    target = target.rpartition("<")[2].rstrip(">").lstrip("~!")
    if target.startswith("."):
        package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
        return exists(f"{package}{target}")
    names = target.split(".")
    return any(within(module, each, names) for each in [tree(module), *owners]) or exists(target)


def docstrings(module: str) -> list[tuple[int, list[ast.AST], str]]:
    """Return every string that stands by itself, with its line and the classes around it."""
    found = []

    def look(node: ast.AST, owners: list[ast.AST]) -> None:
        for each in ast.iter_child_nodes(node):
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                found.append((each.lineno, owners, each.value.value))
            look(each, [*owners, each] if isinstance(each, ast.ClassDef) else owners)

    look(tree(module), [])
    return found


@pytest.mark.parametrize("top", sorted({name.partition(".")[0] for name in SOURCES}))
def test_every_role_names_something(top: str) -> None:
    dangling = []
    for module, path in SOURCES.items():
        if module.partition(".")[0] != top:
            continue
        for line, owners, text in docstrings(module):
            for _, target in ROLE.findall(text):
                if not resolves(module, owners, target):
                    dangling.append(f"{path.relative_to(ROOT).as_posix()}:{line}: {target}")
    assert not dangling


def test_a_name_that_does_not_exist_is_seen() -> None:
    assert resolves("forge.api.offer", [], "forge.api.Table")
    assert resolves("forge.api.event", [], "EVENTS")
    assert not resolves("forge.api.event", [], "EVENT")
    assert not resolves("forge.api.event", [], "forge.api.events")
