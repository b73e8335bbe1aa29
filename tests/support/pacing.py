"""What offers of tests say of how long a training takes with them, by the names that offers hold."""

from __future__ import annotations

from typing import Any

from forge.api import Pace


def soon(*_: Any) -> Pace:
    """Return a start of 10 s, and 100 steps of a second."""
    return Pace(start=10, step=1.0, steps=100, how="measured")


def late(*_: Any) -> Pace:
    """Return a start of 40 s, and steps that are a tenth faster."""
    return Pace(start=40, step=0.9, steps=100, how="estimated")


def nearly(*_: Any) -> Pace:
    """Return a start of 14 s, and the same steps as the first."""
    return Pace(start=14, step=1.0, steps=100, how="estimated")


def unknown(*_: Any) -> Pace:
    """Return a start alone."""
    return Pace(start=10, step=None, steps=None, how="estimated", why="the rows are far away")


def failing(*_: Any) -> Pace:
    """Fail."""
    raise KeyError("clock")


def heavy(*_: Any) -> Pace:
    """Import what planning must not."""
    import trl  # noqa: F401

    return soon()
