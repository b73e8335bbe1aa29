"""What an MLX run leaves for others: forge's own exports with their gates, and files for mlx-lm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from support.evaluating import exported
from support.mlx import NEEDED
from support.projects import json_of, merged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.projects import Finished, Project

pytestmark = NEEDED

FORMATS: list[dict[str, Any]] = [
    {"format": "mlx"},
    {"format": "mlx", "parts": "adapter"},
    {"format": "mlx", "bits": 8, "group_size": 32},
    {"format": "merged"},
    {"format": "adapter"},
]


def trained(project: Project, **changes: Any) -> Finished:
    base = {"train": {"max_steps": 4, "learning_rate": 0.02}, "use": {"backend": "mlx"}, "export": FORMATS}
    project.write(**merged(base, changes))
    finished = project.perform()
    assert finished.code == 0, finished.printed[-3000:]
    return finished


def written(finished: Finished, index: int) -> Path:
    made = exported(finished, index)
    assert made.code == 0, made.printed[-3000:]
    (folder,) = (finished.folder.path / "exports").glob(f"{index + 1}-*/")
    return folder


def theirs(project: Project, finished: Finished) -> Any:
    """Return the logits that transformers and peft have of a run."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(project.folder / "model", dtype=torch.float32)
    with torch.no_grad():
        return PeftModel.from_pretrained(base, finished.folder.path / "adapter")(IDS).logits.numpy()


IDS = torch.randint(3, 400, (2, 24), generator=torch.Generator().manual_seed(0))

ADAPTERS = {
    "plain": {},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "layers_to_transform": [0, 2]},
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_mlx_lm_reads_what_is_written_for_it(of_family: Callable[[str], Project], adapter: str) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load

    project = of_family("qwen3")
    finished = trained(project, adapter=ADAPTERS[adapter])
    expected = theirs(project, finished)
    size = np.abs(expected).max()
    whole, tokenizer = load(str(written(finished, 0)))
    assert tokenizer.encode("Hi")
    assert np.abs(np.array(whole(mx.array(IDS.numpy()))) - expected).max() / size < 1e-5
    apart, _ = load(str(project.folder / "model"), adapter_path=str(written(finished, 1)))
    assert np.abs(np.array(apart(mx.array(IDS.numpy()))) - expected).max() / size < 1e-5
    small = written(finished, 2)
    assert json_of(small / "config.json")["quantization"] == {"group_size": 32, "bits": 8, "mode": "affine"}
    rounded, _ = load(str(small))
    assert 1e-5 < np.abs(np.array(rounded(mx.array(IDS.numpy()))) - expected).max() / size < 0.1


def test_an_export_carries_the_settings_that_mlx_lm_would_take_otherwise(of_family: Callable[[str], Project]) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load

    project = of_family("qwen2")  # whose angles mlx-lm takes for others, where transformers 5 has written the settings
    finished = trained(project)
    whole, _ = load(str(written(finished, 0)))
    expected = theirs(project, finished)
    assert np.abs(np.array(whole(mx.array(IDS.numpy()))) - expected).max() / np.abs(expected).max() < 1e-5
    made = exported(finished, 1)
    assert made.error["what"] == "mlx-lm reads the base model otherwise than transformers does"


def test_forges_own_exports_take_it(llama: Project) -> None:
    finished = trained(llama)
    merged_model, adapter = written(finished, 3), written(finished, 4)
    assert (merged_model / "model.safetensors").is_file()
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(llama.folder / "model")


def test_a_whole_model_is_read_by_transformers_and_mlx_lm(llama: Project) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load
    from transformers import AutoModelForCausalLM

    adapter = {"type": "none", "r": None, "lora_alpha": None}
    finished = trained(llama, adapter=adapter, export=[FORMATS[0], FORMATS[3]])
    folder = finished.folder.path / "model"
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits.numpy()
    whole, _ = load(str(written(finished, 0)))
    assert np.abs(np.array(whole(mx.array(IDS.numpy()))) - expected).max() < 1e-5
    assert (written(finished, 1) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"group_size": 32}, "group_size has no effect without bits"),
        ({"parts": "adapter", "bits": 4}, "bits is for a whole model"),
    ],
)
def test_keys_without_effect_are_mistakes(llama: Project, table: dict[str, Any], said: str) -> None:
    llama.write(export=[{"format": "mlx", **table}])
    assert said in llama.forge("plan", "job.toml", code=2)
