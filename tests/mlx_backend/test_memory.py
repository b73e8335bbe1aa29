"""The estimate of memory, beside the peak that MLX's own allocator tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Task
from support.mlx import NEEDED
from support.projects import Project, merged
from support.tiny import make_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = NEEDED

CHANGES: dict[str, dict[str, Any]] = {
    "lora": {},
    "long": {"train": {"per_device_train_batch_size": 1}},
    "checkpointing": {"train": {"gradient_checkpointing": True}},
    "half": {"model": {"dtype": "bfloat16"}},
    "full": {"adapter": {"type": "none", "r": None, "lora_alpha": None}},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose activations are larger than what a process has beside."""
    return make_model(tmp_path_factory.mktemp("wide") / "model", hidden=192, layers=6, vocab=600)


@pytest.mark.parametrize("name", CHANGES)
def test_the_estimate_is_near_the_measured_peak(wide: Path, tmp_path: Path, name: str) -> None:
    import mlx.core as mx

    project = Project(tmp_path / "project", wide)
    base = {"use": {"backend": "mlx"}, "train": {"per_device_train_batch_size": 4}}
    project.write(**merged(base, CHANGES[name]))
    mx.clear_cache()
    mx.reset_peak_memory()
    done = project.perform(task=Task.DRY_RUN)
    assert done.code == 0, done.printed
    (told,) = done.of_kind("dry-run")
    states = sum(part["bytes"] for part in told["estimate"]["parts"] if part["name"] == "optimizer")
    # The optimizer's states come with the first step.
    assert told["estimate"]["peak"] - states == pytest.approx(told["memory"], rel=0.3)
