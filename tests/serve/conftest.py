"""A folder with runs and a server in it, shared by the tests of a module."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from forge.disk.folder import RunFolder
from support.projects import Project
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.serving import Served

pytest.importorskip("starlette")
if sys.platform == "win32":
    pytest.skip("the queue's processes are stopped by signals", allow_module_level=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model, trained) -> Project:
    """A project with a finished run, ``old/20260101-000000``, whose rows are a few."""
    project = Project(tmp_path_factory.mktemp("served") / "project", tiny_model)
    _, finished = trained
    shutil.copytree(finished.path, project.runs / "old" / "20260101-000000")
    return project


@pytest.fixture(scope="module")
def served(place: Project) -> Iterator[Served]:
    """A server in the project's folder."""
    with serving(place.folder) as found:
        yield found


@pytest.fixture
def job(place: Project) -> str:
    """A job that trains four steps."""
    return (place.folder / "job.toml").read_text(encoding="utf-8")


def events_of(folder: RunFolder) -> list[dict[str, object]]:
    """Return the events of a run."""
    return [json.loads(line) for line in folder.events.read_text(encoding="utf-8").splitlines()]
