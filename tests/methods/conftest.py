"""A project of its own for each test of a method."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from methods_rows import REWARDS
from projects import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """A project of its own for each test, with reward functions beside the job."""
    made = Project(tmp_path / "project", tiny_model)
    (made.folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    return made


@pytest.fixture
def rows(project: Project) -> Callable[[Sequence[Any]], None]:
    """Write the project's rows."""

    def write(rows: Sequence[Any]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (project.folder / "rows.jsonl").write_text(text, encoding="utf-8")

    return write
