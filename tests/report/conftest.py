"""Fixtures of the tests of the page about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from support.pages import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
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
def run(tmp_path: Path, catalogue: Catalogue) -> Iterator[Run]:
    """A run that is planned and has not begun."""
    file = parse(JOB, str(tmp_path / "job.toml"), tmp_path, PluginKeys(catalogue))
    facts = ModelFacts(id="org/name", source="unknown", task="text")
    plan = make_plan(file, catalogue, PRESETS["linux-cpu"], facts)
    folder = RunFolder.create(tmp_path / "runs", file)
    folder.add_plan(plan)
    made = Run(folder, plan)
    yield made
    made.log.close()
