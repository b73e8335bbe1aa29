"""Projects for embedding models and rerankers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.projects import Project
from support.tiny_encoder import make_bert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Of = "Callable[..., Project]"


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare encoder, made once."""
    return make_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def texts(tmp_path: Path, bert: Path) -> Callable[..., Project]:
    """Return a project with these rows; further tables go over those of the usual job."""

    def make(rows: Sequence[dict[str, Any]], method: str = "embedding", **tables: Any) -> Project:
        project = Project(tmp_path / "project", bert)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (project.folder / "rows.jsonl").write_text(text, encoding="utf-8")
        train = {"method": method, "per_device_train_batch_size": 4, "gradient_checkpointing": None}
        more = tables.pop("data", {})
        project.write(train=train | tables.pop("train", {}), data={"eval_size": 4} | more, **tables)
        return project

    return make
