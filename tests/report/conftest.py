"""Fixtures of the tests of the page about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge.discovery.discover import discover
from projects import Project
from sites import Site

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A place for distributions, empty."""
    return Site(tmp_path / "site")


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The plugins of this checkout, and no others that the environment may have."""
    return discover({"FORGE_PLUGINS": "huggingface"})


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """A project of its own for each test."""
    return Project(tmp_path / "project", tiny_model)
