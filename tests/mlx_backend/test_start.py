"""Going on from an adapter with MLX, whoever trained it: the losses are transformers', and so is the reference."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forge.api import Stage
from support.mlx import BY_NAME, NEEDED, done
from support.projects import json_of, merged
from support.resuming import parted
from support.rows import pairs

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Finished, Project

pytestmark = NEEDED

FRESH: dict[str, Any] = {"r": None, "lora_alpha": None}
ADAPTERS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True, "target_modules": ["q_proj", "up_proj"]},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True},
}


def adapter(finished: Finished) -> Path:
    return finished.folder.path / "adapter"


def compared(project: Project, start: Path, **changes: Any) -> Finished:
    """Go on from an adapter with MLX and with transformers, and compare all that is left."""
    changes = merged(changes, {"adapter": {**FRESH, "from": str(start)}})
    mine, theirs = done(project, **merged(changes, BY_NAME)), done(project, **changes)
    assert [each.folder.plan().step(Stage.ADAPT).plugin for each in (mine, theirs)] == ["mlx", "huggingface"]
    far = [abs(one - other) / abs(other) for one, other in zip(mine.losses, theirs.losses, strict=True)]
    assert far[0] < 1e-5
    assert sum(far) / len(far) < 1e-4
    left = [load_file(adapter(each) / "adapter_model.safetensors") for each in (mine, theirs)]
    assert left[0].keys() == left[1].keys()
    for name, value in left[1].items():
        np.testing.assert_allclose(left[0][name], value, atol=2e-3, err_msg=name)
    settings = [json_of(adapter(each) / "adapter_config.json") for each in (mine, theirs)]
    for each in settings:
        each["target_modules"] = sorted(each["target_modules"])
    assert settings[0] == settings[1]
    return mine


@pytest.mark.slow
@pytest.mark.parametrize("by", ["huggingface", "mlx"])
@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_more_of_the_same_is_transformers(llama: Project, kind: str, by: str) -> None:
    train = {"learning_rate": 1e-2, "max_steps": 6, "save_steps": 6}
    first = done(llama, adapter=ADAPTERS[kind], train=train, use={"backend": by})
    compared(llama, first.folder.path, train=train)


def test_preferences_after_supervised_training_are_transformers(llama: Project) -> None:
    first = done(llama, train={"learning_rate": 1e-2, "max_steps": 6}, **BY_NAME)
    (llama.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs(16))), encoding="utf-8")
    train = {"method": "dpo", "learning_rate": 1e-3, "max_steps": 6, "save_steps": 6}
    mine = compared(llama, first.folder.path, train=train, data={"path": "pairs.jsonl"})
    assert mine.losses[0] == pytest.approx(0.693147, abs=1e-5)  # log 2: the model is its own reference


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_reference(llama: Project) -> None:
    first = done(llama, train={"learning_rate": 1e-2, "max_steps": 6}, **BY_NAME)
    (llama.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs(16))), encoding="utf-8")
    train = {"method": "dpo", "max_steps": 6, "save_steps": 3, "save_total_limit": 10}
    start = {"adapter": {**FRESH, "from": str(first.folder.path)}, "train": train, "data": {"path": "pairs.jsonl"}}
    llama.write(**merged(start, BY_NAME))
    assert dict(parted(llama)) == {3: [], 6: []}


def test_an_adapter_that_is_not_for_the_model_is_told_before_training(llama: Project, tmp_path: Path) -> None:
    first = done(llama, adapter={"target_modules": ["q_proj", "v_proj"]}, **BY_NAME)
    folder = tmp_path / "other"
    shutil.copytree(adapter(first), folder)
    weights = load_file(folder / "adapter_model.safetensors")
    gone = min(weights)
    save_file({name: value for name, value in weights.items() if name != gone}, folder / "adapter_model.safetensors")
    llama.write(**merged(BY_NAME, {"adapter": {**FRESH, "from": str(folder)}}))
    error = llama.perform().error
    assert error["what"].startswith(f"the adapter in {folder} cannot be put on ")
    assert error["why"] == f"its file lacks 1 of 12 weights, as {gone}"
    save_file({**weights, "base_model.model.lm_head.weight": weights[gone]}, folder / "adapter_model.safetensors")
    error = llama.perform().error
    assert error["why"].startswith("it has weights of ")
    save_file(weights, folder / "adapter_model.safetensors")
    config = json_of(folder / "adapter_config.json")
    (folder / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": ["lm_head"]}))
    said = llama.forge("plan", "job.toml", code=2)
    assert 'from: modules_to_save = ["lm_head"] in its config, and MLX has LoRA\'s matrices alone' in said
