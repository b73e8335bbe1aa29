"""Fixtures of the tests that run jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from projects import Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """A project of its own for each test."""
    return Project(tmp_path / "project", tiny_model)
