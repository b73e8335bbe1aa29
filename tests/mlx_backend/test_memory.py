"""The estimate of memory, beside the peak that MLX's own allocator tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forge.api import Job, Task
from support.mlx import NEEDED
from support.projects import Project, merged
from support.tiny import make_model

pytestmark = NEEDED

CHANGES: dict[str, dict[str, Any]] = {
    "lora": {},
    "long": {"train": {"per_device_train_batch_size": 1}},
    "checkpointing": {"train": {"gradient_checkpointing": True}},
    "half": {"model": {"dtype": "bfloat16"}},
    "four": {"model": {"load_in_4bit": True}},
    "eight": {"model": {"load_in_8bit": True, "dtype": "bfloat16"}},
    "dora": {"model": {"load_in_4bit": True}, "adapter": {"use_dora": True}},
    "full": {"adapter": {"type": "none", "r": None, "lora_alpha": None}},
}


def asked(**model: Any) -> Job:
    tables = {"model": {"max_seq_length": 64, **model}, "data": {"path": "rows.jsonl"}, "folder": Path("/jobs")}
    return Job.model_validate(tables)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose activations are larger than what a process has beside."""
    return make_model(tmp_path_factory.mktemp("wide") / "model", hidden=192, layers=6, vocab=600)


SLOW = {"eight", "half", "long"}
"""Cases beside which others have the same parts."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CHANGES]
)
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
    (layers,) = (part for part in told["estimate"]["parts"] if part["name"] == "activations")
    assert layers["note"].endswith("; as measured on MLX's CPU build, not on a Mac")
    # The optimizer's states come with the first step.
    assert told["estimate"]["peak"] - states == pytest.approx(told["memory"], rel=0.15)


def test_a_base_of_few_bits_is_never_in_memory_as_a_whole(wide: Path) -> None:
    import mlx.core as mx

    from forge_mlx.load import read_model

    job = asked(id=str(wide), dtype="float32", load_in_4bit=True)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    module = read_model(job, wide)
    assert mx.get_peak_memory() - before < (wide / "model.safetensors").stat().st_size / 2
    del module


def test_an_optimizer_of_pages_stays_in_a_memory_that_is_one() -> None:
    from forge_mlx.memory import unpaged

    job = asked(id="m")
    for paged, plain in (("paged_adamw_32bit", "adamw_torch"), ("paged_lion_32bit", "lion_32bit"), ("sgd", "sgd")):
        train = job.train.model_copy(update={"optim": paged})
        assert unpaged(job.model_copy(update={"train": train})).train.options["optim"] == plain
