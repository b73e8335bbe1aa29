"""Whoever looks for the room of a change finds each of them: in the contributor's table, and in the architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSES = ("core/forge", "plugins", "plugins/forge_huggingface")
ROOMS = sorted(init.parent for house in HOUSES for init in ROOT.glob(f"{house}/*/__init__.py"))
TESTS = sorted(path for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("*.py")))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [*ROOMS, *TESTS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_contributors_table_names_every_room(folder: Path) -> None:
    assert f"{folder.name}/`" in text("CONTRIBUTING.md")


@pytest.mark.parametrize("folder", ROOMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_architecture_tells_of_every_room(folder: Path) -> None:
    package = ".".join(folder.relative_to(ROOT / folder.relative_to(ROOT).parts[0]).parts)
    assert f"### {package}\n" in text("docs/architecture.md")
