"""The tensors of a file are those that peft computes, row by row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from forge.errors import ExportError, ModelError
from forge_gguf.file.weights import Weights
from support.tiny import make_model

if TYPE_CHECKING:
    from pathlib import Path

PEFT: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "other ranks and alphas": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.1.mlp.down_proj": 5}},
    "modules trained whole": {"modules_to_save": ["lm_head"]},
    "biases": {"bias": "lora_only"},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
}


def adapted(folder: Path, **differs: Any) -> Any:
    """Write an adapter with random numbers in it, and return what peft merges."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    wish = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(model, LoraConfig(**{**wish, **differs}))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "adapter")
    return model.merge_and_unload().state_dict()


@pytest.mark.parametrize("kind", PEFT)
def test_merging_row_by_row_is_merging(kind: str, tmp_path: Path) -> None:
    make_model(tmp_path / "base")
    merged = adapted(tmp_path, **PEFT[kind])
    weights = Weights(tmp_path / "base", tmp_path / "adapter")
    changed = 0
    plain = Weights(tmp_path / "base")
    for name in weights.names():
        rows = weights.shape(name)[0]
        halves = [weights.rows(name, 0, rows // 2), weights.rows(name, rows // 2, rows)]
        np.testing.assert_allclose(np.concatenate(halves), merged[name].numpy(), atol=2e-6, rtol=1e-5, err_msg=name)
        changed += not np.array_equal(np.concatenate(halves), plain.rows(name, 0, rows)) if name in plain else 1
    assert changed >= 2


def test_types_and_shards_are_read_as_they_are(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    make_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    weights = Weights(tmp_path / "shards")
    for name, tensor in model.state_dict().items():
        assert np.array_equal(weights.rows(name, 0, tensor.shape[0]), tensor.float().numpy())


def test_a_tensor_that_no_file_has_is_a_damaged_folder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    make_model(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16).save_pretrained(
        tmp_path / "shards", max_shard_size="20KB"
    )
    index = tmp_path / "shards" / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["model.lost.weight"] = next(iter(told["weight_map"].values()))
    index.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"model\.lost\.weight"):
        Weights(tmp_path / "shards")


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = make_model(tmp_path / "base") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut short"):
        Weights(tmp_path / "base")


def test_numbers_that_are_none_are_not_exported(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = make_model(tmp_path / "base") / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, path)
    with pytest.raises(ExportError, match=r"model\.norm\.weight"):
        Weights(tmp_path / "base").rows("model.norm.weight", 0, 4)


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "base", layers=3)
    adapted(tmp_path)
    make_model(tmp_path / "other", layers=2)
    with pytest.raises(ExportError, match="does not fit the base model"):
        Weights(tmp_path / "other", tmp_path / "adapter")
