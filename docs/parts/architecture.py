"""What stands where: the rooms of the core and of each plugin, by their docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from parts.markdown import plain, table

ROOT = Path(__file__).resolve().parents[2]


def rooms(package: str) -> str:
    """Every module of a package, room by room: a room is a package, and says what it is for, as its modules do."""
    folder = ROOT / ("core" if package == "forge" else "plugins") / package
    return "\n\n".join(_room(init.parent, folder.parent) for init in sorted(folder.rglob("__init__.py"), key=_order))


def _order(init: Path) -> tuple[str, ...]:
    return init.parent.parts


def _room(folder: Path, above: Path) -> str:
    name = ".".join(folder.relative_to(above).parts)
    modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    lines = ((f"`{path.name}`", said(path)) for path in modules)
    about = f"### {name}\n\n{said(folder / '__init__.py')}"
    return f"{about}\n\n{table(('module', 'what it is'), lines)}" if modules else about


def said(path: Path) -> str:
    """Return the first sentence of a module's docstring. Raises :class:`ValueError` if it has none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring")
    return re.split(r"(?<=\.) (?=[A-Z])", plain(text.split("\n\n", maxsplit=1)[0]), maxsplit=1)[0]
