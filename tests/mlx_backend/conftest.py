"""Models of the families that MLX's side of forge knows, and projects with one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.mlx import make
from support.projects import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a family's model, made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make(tmp_path_factory.mktemp("families") / family, family)
        return made[family]

    return folder


@pytest.fixture
def of_family(families: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Project]:
    """Return a project with a family's model."""
    return lambda family: Project(tmp_path / family, families(family))


@pytest.fixture
def llama(of_family: Callable[[str], Project]) -> Project:
    """A project with a Llama."""
    return of_family("llama")
