"""The example plugins: each passes its own tests, and is written as its own settings of ruff and mypy want it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.sites import Site

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
ROOTS = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))


LONG = {"forge-bundle", "forge-plain"}
"""Those whose tests take long; ``test_plain.py`` trains with the second one too, and holds more."""


@pytest.mark.parametrize(
    "root",
    [pytest.param(root, marks=pytest.mark.slow if root.name in LONG else (), id=root.name) for root in ROOTS],
)
def test_an_example_passes_its_own_tests(site: Site, root: Path) -> None:
    site.install_project(root)
    assert " passed" in site.pytest(root)


def test_the_examples_are_written_as_they_ask_for() -> None:
    for arguments in (["check"], ["format", "--check"]):
        ruff = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", *map(str, ROOTS)], capture_output=True, text=True
        )
        assert ruff.returncode == 0, ruff.stdout + ruff.stderr


@pytest.mark.slow
@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_the_types_of_an_example_are_right(tmp_path: Path, root: Path) -> None:
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "mypy")], capture_output=True, text=True, cwd=root
    )
    assert mypy.returncode == 0, mypy.stdout + mypy.stderr


def test_the_documents_name_every_example() -> None:
    told = (EXAMPLES.parents[1] / "docs" / "plugins" / "index.md").read_text(encoding="utf-8")
    assert [root.name for root in ROOTS if f"examples/plugins/{root.name}" not in told] == []
