"""Fixtures of the tests of the page about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from pages import Run
from projects import Project
from sites import Site

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

JOB = """name = "tale"
[model]
id = "org/name"
[data]
path = "rows.jsonl"
[train]
learning_rate = 3e-4
[[export]]
format = "merged"
"""


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


@pytest.fixture
def run(tmp_path: Path, catalogue: Catalogue) -> Run:
    """A run that is planned and has not begun."""
    file = parse(JOB, str(tmp_path / "job.toml"), tmp_path, PluginKeys(catalogue))
    facts = ModelFacts(id="org/name", source="unknown", task="text")
    plan = make_plan(file, catalogue, PRESETS["linux-cpu"], facts)
    folder = RunFolder.create(tmp_path / "runs", file)
    folder.add_plan(plan)
    return Run(folder, plan)
