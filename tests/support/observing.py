"""A run for tests of observers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from forge.api import Run

if TYPE_CHECKING:
    from forge.api.plan import Plan


def run_of(*observers: tuple[str, str]) -> Run:
    """Return a run with observers, each by its plugin and module."""
    plan = SimpleNamespace(observers=observers, decisions=(), configs={"x": {"colour": "blue"}})
    return Run(folder=Path(), plan=cast("Plan", plan))
