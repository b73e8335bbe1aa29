"""Whoever looks for the room of a change finds each of them: in the contributor's table, and in the architecture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSES = ("core/forge", "plugins", "plugins/forge_huggingface")
ROOMS = sorted(init.parent for house in HOUSES for init in ROOT.glob(f"{house}/*/__init__.py"))
TESTS = sorted(path for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("*.py")))
ELSEWHERE = {"docs", "examples", "benchmarks"}
"""Tests of folders that are no rooms; they are called as these."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def told() -> set[Path]:
    """Return the folders that the contributor's table names; those of a row with "…" lie in that of the row before."""
    found: set[Path] = set()
    rows = text("CONTRIBUTING.md").split("## Where things live")[1].split("\n## ")[0].splitlines()
    before = ROOT
    for row in (line for line in rows if line.startswith("| ")):
        names = [name.rstrip("/") for name in re.findall(r"`([\w/.]+/)`", row.split("|")[1])]
        if row.startswith("| …"):
            found |= {before / name for name in names}
        elif names:
            above, _, _ = names[0].rpartition("/")
            found |= {ROOT / name if "/" in name else ROOT / above / name for name in names}
            before = ROOT / names[0]
        if names == ["tests"]:
            found |= {ROOT / "tests" / name for name in re.findall(r"`(\w+)/`", row.split("|")[2])}
    return found


@pytest.mark.parametrize("folder", [*ROOMS, *TESTS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_contributors_table_names_every_room(folder: Path) -> None:
    assert folder in told() or folder.name in ELSEWHERE


@pytest.mark.parametrize("folder", ROOMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_architecture_tells_of_every_room(folder: Path) -> None:
    package = ".".join(folder.relative_to(ROOT / folder.relative_to(ROOT).parts[0]).parts)
    assert f"### {package}\n" in text("docs/architecture.md")
