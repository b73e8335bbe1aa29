"""Fixtures of the tests of vision models."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from projects import Project
from tiny_vlm import make_image_rows, make_vlm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Models = Callable[[str], Path]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Gives a random vision model of a family, made once. Copy it before you change a file of it."""
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("vlms")

    def get(arch: str) -> Path:
        if arch.startswith("qwen"):
            pytest.importorskip("torchvision")
        path = folder / arch
        return path if path.is_dir() else make_vlm(path, arch)

    return get


class VisionProject(Project):
    """A project whose model sees, with pictures in ``pictures/``."""

    def __init__(self, folder: Path, model: Path, rows: int = 8) -> None:
        folder.mkdir(parents=True)
        self.folder, self.runs = folder, folder / "runs"
        shutil.copytree(model, folder / "model")
        make_image_rows(folder / "rows.jsonl", rows)
        self.write()


@pytest.fixture
def project(tmp_path: Path, models: Models) -> VisionProject:
    """A project of its own for each test, with the model that needs the least."""
    return VisionProject(tmp_path / "project", models("idefics3"))


@pytest.fixture
def projects(tmp_path: Path, models: Models) -> Callable[[str], VisionProject]:
    """Makes a project with a model of a family."""
    return lambda arch: VisionProject(tmp_path / arch, models(arch))
