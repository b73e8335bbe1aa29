"""Weights in formats that no adapter can be trained on: refused, or loaded as 16 bit ones, and told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forge.errors import PlanError
from forge.machine.presets import PRESETS
from forge_huggingface.rules.quantised import PACKAGES
from support.planning import BASE, CUDA, FACTS, planner, reasons
from support.projects import Project, json_of

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

TRANSFORMERS = "5.23.0"


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


def stored(quantized: str, transformers: str = TRANSFORMERS) -> dict[str, Any]:
    """Return facts about a model in a format, and a machine with a version of transformers."""
    packages = dict.fromkeys(PACKAGES.get(quantized, ()), "1.0")
    versions = {**CUDA.versions, "transformers": transformers, "kernels": "0.12", "bitsandbytes": "0.48", **packages}
    return {"facts": replace(FACTS, quantized=quantized), "machine": replace(CUDA, versions=versions)}


@pytest.mark.parametrize("format_", ["nvfp4", "fbgemm_fp8", "higgs", "quark", "spqr", "vptq", "bitnet", "auto-round"])
def test_a_format_that_no_adapter_can_be_trained_on_is_refused(plan: Any, format_: str) -> None:
    with pytest.raises(PlanError, match=f"stored in {format_}, and transformers trains no adapter on that"):
        plan(**stored(format_))


@pytest.mark.parametrize("format_", ["gptq", "awq", "bitsandbytes", "fp8", "hqq"])
def test_others_stay_as_they_are(plan: Any, format_: str) -> None:
    assert plan(**stored(format_)).decided("model.dequantize") is None


@pytest.mark.parametrize("format_", PACKAGES)
def test_the_package_that_loads_a_format_is_asked_for_before_anything_is_downloaded(plan: Any, format_: str) -> None:
    with pytest.raises(PlanError, match=f"which needs {PACKAGES[format_][0]}.*: not installed .pip install"):
        plan(facts=replace(FACTS, quantized=format_))


@pytest.mark.parametrize(("format_", "version"), [("mxfp4", TRANSFORMERS), ("fp8", "5.17.0")])
def test_what_can_be_widened_is_and_it_is_told(plan: Any, format_: str, version: str) -> None:
    found = plan(**stored(format_, version))
    assert found.decided("model.dequantize") is True
    assert "in 16 bit they take" in reasons(found)["model.dequantize"]
    kept = BASE.replace('id = "m"', 'id = "m"\ndequantize = false')
    with pytest.raises(PlanError, match="dequantize = false: transformers trains no adapter"):
        plan(kept, **stored(format_, version))


def test_widened_weights_can_all_be_trained_where_the_job_says_so(plan: Any) -> None:
    whole = BASE + '[adapter]\ntype = "none"\n'
    with pytest.raises(PlanError, match=r"or write \[model\] dequantize = true"):
        plan(whole, **stored("mxfp4"))
    assert plan(whole.replace('id = "m"', 'id = "m"\ndequantize = true'), **stored("mxfp4"))


def test_the_key_is_for_quantised_models(plan: Any) -> None:
    text = BASE.replace('id = "m"', 'id = "m"\ndequantize = true')
    with pytest.raises(PlanError, match="not stored in any such format"):
        plan(text, machine=PRESETS["linux-cuda"])
    with pytest.raises(PlanError, match="the model is stored in gptq"):
        plan(text, **stored("gptq"))


def to_mxfp4(folder: Path, tokenizer: Path) -> None:
    """Write a tiny gpt-oss whose experts are stored in mxfp4: blocks of 32 numbers of 4 bit with one scale."""
    import shutil

    from transformers import GptOssConfig, GptOssForCausalLM

    vocabulary = json_of(tokenizer / "config.json")["vocab_size"]
    config = GptOssConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=1,
        max_position_embeddings=256,
        layer_types=["full_attention"],
        pad_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    shutil.rmtree(folder)
    shutil.copytree(tokenizer, folder)
    (folder / "model.safetensors").unlink()
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [each for each in tensors if each.endswith("_proj") and "experts" in each]:
        experts, inputs, outputs = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = (
            blocks,
            torch.full(blocks.shape[:3], 121, dtype=torch.uint8),
        )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = json_of(folder / "config.json")
    written["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    (folder / "config.json").write_text(json.dumps(written))


@pytest.mark.slow
def test_a_model_stored_in_mxfp4_is_trained_in_16_bit_and_merged(project: Project, tiny_model: Path) -> None:
    to_mxfp4(project.folder / "model", tiny_model)
    project.write(export=[{"format": "merged"}])
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.folder.plan().decided("model.dequantize") is True
    assert done.of_kind("loaded")[0]["dtype"] == "float32"
    assert len(done.losses) == 4
    project.forge("export", str(done.folder.path), code=None)
    (merged,) = done.folder.path.glob("exports/*merged*/config.json")
    assert "quantization_config" not in json_of(merged)
