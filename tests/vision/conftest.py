"""Fixtures of the tests of vision models."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
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
        if not path.is_dir():
            make_vlm(path, arch)
        if find_spec("torchvision") is None and not loads(path):
            # transformers 5.17 has a PIL processor for gemma3 and llava, and for idefics3 only since 5.23; torchvision
            # has no CPU build on PyPI, so this set cannot have it installed by a constraint.
            pytest.skip(f"the processor of {arch} needs torchvision in this transformers")
        return path

    return get


def loads(model: Path) -> bool:
    """Whether transformers can make the model's processor here."""
    from transformers import AutoProcessor

    try:
        AutoProcessor.from_pretrained(model)
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error):
            raise
        return False
    return True


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
