"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules() -> list[str]:
    """Return the modules of core and plugins whose docstrings hold an example."""
    return [
        ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")
        for top in (ROOT / "core", ROOT / "plugins")
        for path in sorted(top.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_the_api_has_examples() -> None:
    assert {
        "forge.api",
        "forge.api.command",
        "forge.api.estimate",
        "forge.api.event",
        "forge.api.offer",
        "forge.api.reference",
        "forge.job.decisions",
        "forge.job.literal",
        "forge.job.table",
        "forge.parent.process",
    } <= {*modules()}
