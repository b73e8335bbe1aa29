"""Bases that are stored in 4 bit: counted as such from config.json alone, and merged into what they were made from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forge.errors import ExportError
from forge.job.decisions import settle
from forge.job.job import Job, load_job
from forge.model.facts import ModelFacts
from forge_huggingface.export.merge import merge
from forge_huggingface.facts.describe import describe
from forge_huggingface.facts.shape import from_config
from forge_huggingface.facts.stored import bits_of
from forge_huggingface.memory.kernels import TRANSFORMERS
from forge_huggingface.memory.parts import bare
from forge_huggingface.rules.export import cannot_merge
from support.measuring import CPU, LLAMAS, make_job
from support.projects import json_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}


@pytest.mark.parametrize(
    ("told", "bits"),
    [
        (NF4, 4.127),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "_load_in_8bit": True, "load_in_8bit": True}, 8),
        (GPTQ, 4.156),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1}, 3),
        (AWQ, 4.156),
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "mxfp4"}, 4.25),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, 4.3125),
        ({"quant_method": "quanto", "weights": "int4"}, 4),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, 4),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}}, 8),
        ({"quant_method": "gptq", "bits": "four"}, None),
        ({"quant_method": "compressed-tensors", "config_groups": []}, None),
        ({"quant_method": "aqlm"}, None),
    ],
)
def test_a_format_tells_how_many_bits_a_weight_takes(told: dict[str, Any], bits: float | None) -> None:
    assert bits_of(told) == (bits if bits is None else pytest.approx(bits, abs=1e-3))


@pytest.mark.parametrize(("told", "size"), [(NF4, 5.31), (GPTQ, 5.33), (AWQ, 5.33), ({"quant_method": "aqlm"}, 15.0)])
def test_a_stored_base_is_counted_from_its_config_alone(told: dict[str, Any], size: float) -> None:
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "model_type": "llama"}
    known = facts(told, shape=from_config({**LLAMAS["8b"], **heads}), stored_bits=bits_of(told), task="text")
    found = bare(CPU, make_job({"model": {"dtype": "bfloat16"}, "adapter": {"r": 4}}), known, TRANSFORMERS, 64)
    assert found is not None
    weights = found.parts[0]
    assert (weights.bytes or 0) / 2**30 == pytest.approx(size, rel=0.005)
    said = "about 4.2 bits each" if told in (GPTQ, AWQ) else "about 4.1 bits each" if told == NF4 else "counted as bf"
    assert said in (weights.note or "")


def facts(told: dict[str, Any], **more: Any) -> ModelFacts:
    return ModelFacts(id="m", source="cache", quantized=told["quant_method"], **more)


@pytest.mark.parametrize(
    ("told", "more", "why"),
    [
        (NF4, {"id": "unsloth/llama-3-8b-bnb-4bit"}, 'write base_model = "unsloth/llama-3-8b", the 16-bit model'),
        (NF4, {"id": "unsloth/Qwen3-8B-unsloth-bnb-4bit"}, 'write base_model = "unsloth/Qwen3-8B"'),
        (GPTQ, {"id": "m/q"}, 'write base_model = "ID", the 16-bit model that it was made from'),
        (AWQ, {"id": "m/q"}, "it fits no 16-bit model; export the adapter"),
    ],
)
def test_a_merge_without_the_original_says_what_to_write(told: dict[str, Any], more: dict[str, Any], why: str) -> None:
    assert why in (cannot_merge(CPU, merging(), replace(facts(told), **more)) or "")


def merging(**options: Any) -> Any:
    """Return a job with a merged export."""
    export = [{"format": "merged", "dtype": "auto", "base_model": None, **options}]
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "rows.jsonl"}, "export": export})


def test_the_card_of_a_model_tells_what_it_was_made_from(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model:\n- me/whole\n---\nbase_model: no\n")
    assert 'base_model = "me/whole"' in (cannot_merge(CPU, merging(), facts(GPTQ, path=str(tmp_path))) or "")


def test_a_model_that_it_was_not_made_from_is_refused_when_planned(project: Project, tmp_path: Path) -> None:
    here = str(project.folder / "model")
    known = replace(describe(here, None, tmp_path), quantized="gptq", source="cache")
    assert known.stored_bits is None
    assert cannot_merge(CPU, merging(base_model=here), known) is None
    other = replace(known, model_type="x")
    assert "is another model than" in (cannot_merge(CPU, merging(base_model=here), other) or "")
    assert "./nowhere is not there" in (cannot_merge(CPU, merging(base_model="./nowhere"), known) or "")
    whole = replace(known, quantized=None)
    said = "base_model: it is for a base that is stored quantised; remove it"
    assert cannot_merge(CPU, merging(base_model=here), whole) == said


def test_an_adapter_is_merged_into_the_original_of_a_stored_base(project: Project, tmp_path: Path) -> None:
    """The base here keeps what quantising keeps, and the rest is packed away, as in a file of GPTQ."""
    done = project.perform()
    assert done.code == 0, done.printed
    run, _ = project.prepare()
    run = replace(run, folder=done.folder.path)
    base, original = project.folder / "model", tmp_path / "original"
    shutil.copytree(base, original)
    tensors = load_file(base / "model.safetensors")
    told = {**json_of(base / "config.json"), "quantization_config": GPTQ}
    (base / "config.json").write_text(json.dumps(told), encoding="utf-8")
    assert describe(str(base), None, tmp_path).stored_bits == pytest.approx(4.156, abs=1e-3)
    packed = {f"{name}.q": torch.zeros(4, dtype=torch.int32) for name in tensors if "_proj" in name}
    save_file(
        {name: value for name, value in tensors.items() if "_proj" not in name} | packed, base / "model.safetensors"
    )
    trained = done.folder.trained()
    assert trained is not None
    job = settle(load_job(run.plan.job), run.plan.decisions)
    report = merge(job, run, trained, tmp_path / "out", "auto", str(original))
    assert report["original"]["model"] == str(original)
    assert report["error"] < 1e-5
    assert "quantization_config" not in json_of(tmp_path / "out" / "config.json")
    other = load_file(original / "model.safetensors")
    other["model.norm.weight"] = other["model.norm.weight"] + 0.5
    save_file(other, original / "model.safetensors")
    with pytest.raises(ExportError, match="the base was not made from"):
        merge(job, run, trained, tmp_path / "again", "auto", str(original))
