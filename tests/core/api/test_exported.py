"""The door for plugins: what stands in it can be had, and having it costs nothing that planning could not afford."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge import api

if TYPE_CHECKING:
    from support.sites import Site


@pytest.mark.parametrize("name", api.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(api, name) is not None


def test_what_can_be_imported_and_is_public_is_listed() -> None:
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    found = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("forge")
        for alias in node.names
        if not str(alias.asname).startswith("_")
    }
    assert found == set(api.__all__)
    assert set(api._HOMES) <= set(api.__all__)


def test_the_list_is_sorted_as_ruff_sorts_it() -> None:
    def key(name: str) -> tuple[int, list[str | int]]:
        kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
        return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    assert api.__all__ == sorted(set(api.__all__), key=key)


def test_the_door_alone_loads_neither_pydantic_nor_rich(site: Site) -> None:
    code = "import sys, forge.api; print(*{'pydantic', 'pydantic_core', 'rich', 'torch', 'numpy'} & set(sys.modules))"
    assert site.python(code).split() == []
