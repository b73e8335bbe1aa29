"""Fixtures of the tests of evaluation, generation and chat: one trained run that all of them may look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from evaluating import METRICS, Evaluation
from projects import Finished, Project

if TYPE_CHECKING:
    from pathlib import Path

    from forge.disk.folder import RunFolder


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """A project of its own for each test, with metrics beside its job."""
    made = Project(tmp_path / "project", tiny_model)
    (made.folder / "metrics.py").write_text(METRICS, encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Project, RunFolder]:
    """A project with a finished run that holds out six rows. Nobody may change it."""
    made = Project(tmp_path_factory.mktemp("trained") / "project", tiny_model)
    (made.folder / "metrics.py").write_text(METRICS, encoding="utf-8")
    changes: dict[str, Any] = {"eval": {"metrics": ["f1"], "max_new_tokens": 8}, "data": {"eval_size": 6}}
    made.write(**changes, train={"max_steps": 8, "learning_rate": 0.05, "save_steps": 8})
    done: Finished = made.perform()
    assert done.code == 0, done.printed
    return made, done.folder


@pytest.fixture
def evaluate(trained: tuple[Project, RunFolder]) -> Evaluation:
    """Evaluates the finished run in this process."""
    return Evaluation(*trained)
