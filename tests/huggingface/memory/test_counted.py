"""What is counted equals what torch reports, on real models: parameters, weights, adapters, gradients, optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge_huggingface.facts import shape as shapes
from forge_huggingface.kernels import apply, seams
from forge_huggingface.memory import footprint, kernels
from forge_huggingface.memory.footprint import Setting
from forge_huggingface.memory.kernels import TRANSFORMERS
from forge_huggingface.memory.parts import bare, setting_of
from forge_huggingface.model.adapt import add_lora
from forge_huggingface.training.checkpointing import heed_layers
from forge_huggingface.training.outlook import in_memory
from support.measuring import CPU, FAMILIES, facts_of, kept_by_autograd, make_job, save_model

if TYPE_CHECKING:
    from pathlib import Path

    from forge.job.job import Job

ADAPTERS: dict[str, dict[str, Any]] = {
    "auto": {"r": 4},
    "names": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "dora": {"r": 4, "use_dora": True},
    "rank_pattern": {"r": 4, "rank_pattern": {"q_proj": 8}},
    "layers": {"r": 4, "layers_to_transform": [1]},
    "exclude": {"r": 4, "exclude_modules": ["down_proj"]},
    "head": {"r": 4, "modules_to_save": ["lm_head"]},
}


def setting(folder: Path, job: Job, longest: int | None = None) -> Setting:
    found = setting_of(CPU, job, facts_of(folder), TRANSFORMERS, longest)
    assert found is not None
    return found[0]


def parts(folder: Path, job: Job) -> dict[str, int | None]:
    found = bare(CPU, job, facts_of(folder), TRANSFORMERS, None)
    assert found is not None
    return {part.name: part.bytes for part in found.parts}


def stepped(model: Any, options: dict[str, Any]) -> torch.optim.Optimizer:
    """Take one step, so that gradients and optimizer states are there."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind: Any = {"adamw_torch_fused": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
    optimizer: torch.optim.Optimizer = kind[options["optim"]](trained, lr=1e-3)
    model(input_ids=torch.zeros(1, 8, dtype=torch.long)).logits.float().sum().backward()
    optimizer.step()
    return optimizer


def in_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_a_model_is_counted_from_its_files_and_from_its_config_alone(
    family: str, tied: bool, tmp_path: Path
) -> None:
    model = save_model(tmp_path, family, tied=tied)
    count = sum(parameter.numel() for parameter in model.parameters())
    facts = facts_of(tmp_path)
    assert facts.shape is not None
    assert facts.shape.exact
    assert (facts.parameters, facts.shape.parameters) == (count, count)
    config = shapes.from_config(model.config.to_dict())
    assert config is not None
    assert config.parameters == count
    assert {(x.name, x.inputs, x.outputs, x.count) for x in config.linears} == {
        (x.name, x.inputs, x.outputs, x.count) for x in facts.shape.linears
    }
    assert (config.norms, config.head_norms, config.tied) == (facts.shape.norms, facts.shape.head_norms, tied)


@pytest.mark.parametrize(
    ("family", "adapter"), [*(("llama", name) for name in ADAPTERS), ("qwen3", "auto"), ("gemma3_text", "auto")]
)
def test_the_adapter_has_as_many_values_as_peft_makes(family: str, adapter: str, tmp_path: Path) -> None:
    model = save_model(tmp_path, family, tied=False)
    job = make_job({"adapter": ADAPTERS[adapter]})
    model, _ = add_lora(model, job)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(footprint.trained(setting(tmp_path, job))) == trained


@pytest.mark.parametrize(
    ("family", "dtype", "optim"),
    [
        *((family, dtype, "adamw_torch_fused") for family in FAMILIES for dtype in ("float32", "bfloat16")),
        ("llama", "float32", "sgd"),
        ("llama", "float32", "rmsprop"),
    ],
)
@pytest.mark.parametrize("kind", ["lora", "none"])
def test_weights_gradients_and_optimizer_take_the_bytes_that_torch_reports(
    family: str, kind: str, dtype: str, optim: str, tmp_path: Path
) -> None:
    model = save_model(tmp_path, family, dtype=dtype)
    tables = {"model": {"dtype": dtype}, "adapter": {"r": 4} if kind == "lora" else {"type": "none"}}
    job = make_job(tables, optim=optim)
    if kind == "lora":
        model, _ = add_lora(model, job)
    optimizer = stepped(model, dict(job.train.options))
    states = (value for state in optimizer.state.values() for value in state.values())
    real = {
        "weights": in_bytes(model.parameters()),
        "gradients": in_bytes(p.grad for p in model.parameters() if p.grad is not None),
        "optimizer": in_bytes(value for value in states if torch.is_tensor(value) and value.dim() > 0),
    }
    found = parts(tmp_path, job)
    counted = {name: found[name] or 0 for name in real}
    counted["weights"] += found.get("adapter") or 0
    assert counted == real
    assert in_memory(model, optim)[1:] == (real["gradients"], real["optimizer"])
    assert in_memory(model, optim)[0] - in_bytes(model.buffers()) == real["weights"]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_keeps_what_autograd_keeps(family: str, kind: str, mixed: bool, tmp_path: Path) -> None:
    """Two models that differ in two layers: what the deeper one keeps more is theirs."""
    kept, length = [], 128
    tables = {"adapter": {"r": 4} if kind == "lora" else {"type": "none"}}
    job = make_job(tables, bf16=mixed, per_device_train_batch_size=1)
    for layers in (2, 4):
        model = save_model(tmp_path / str(layers), family, layers=layers)
        if kind == "lora":
            model, _ = add_lora(model, job)
        kept.append(kept_by_autograd(model.train(), 1, length, mixed=mixed))
    s = setting(tmp_path / "4", job, length)
    expected = kernels.kept(s) * length
    if mixed:  # the 16-bit copies of the weights: kernels.activations counts them beside the layers
        expected += 2 * sum(linear.parameters for linear in s.shape.linears) / s.shape.layers
    assert expected == pytest.approx((kept[1] - kept[0]) / 2, rel=0.05)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_whose_weights_are_trained_keeps_less_too(family: str, mixed: bool, tmp_path: Path) -> None:
    kept, length, parts = [], 256, ["swiglu", "norm", "rope"]
    tables = {"adapter": {"type": "none"}}
    acting: list[str] = []
    for layers in (2, 4):
        model = save_model(tmp_path / str(layers), family, layers=layers)
        acting = [part for part in parts if apply.install(part, model, "sft", parts).on]
        kept.append(kept_by_autograd(model.train(), 1, length, mixed=mixed))
    seams.restore()
    s = setting(tmp_path / "4", make_job(tables, bf16=mixed, per_device_train_batch_size=1, kernels=acting), length)
    expected = kernels.kept(s) * length
    if mixed:  # the 16-bit copies of the weights: kernels.activations counts them beside the layers
        expected += 2 * sum(linear.parameters for linear in s.shape.linears) / s.shape.layers
    assert expected == pytest.approx((kept[1] - kept[0]) / 2, rel=0.05), acting


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_keeps_less_with_forges_kernels(family: str, mixed: bool, tmp_path: Path) -> None:
    kept, length, parts = [], 256, ["lora", "swiglu", "norm", "rope"]
    job = make_job({"adapter": {"r": 4}}, bf16=mixed, per_device_train_batch_size=1, kernels=parts)
    acting = []
    for layers in (2, 4):
        model, _ = add_lora(save_model(tmp_path / str(layers), family, layers=layers), job)
        acting = [part for part in parts if apply.install(part, model, "sft", parts).on]
        kept.append(kept_by_autograd(model.train(), 1, length, mixed=mixed))
    seams.restore()
    if acting != parts:
        job = make_job({"adapter": {"r": 4}}, bf16=mixed, per_device_train_batch_size=1, kernels=acting)
    s = setting(tmp_path / "4", job, length)
    adapter = footprint.trained(s)[0] * s.size / s.shape.layers  # a copy of its matrices, beside the layers
    assert kernels.kept(s) * length + adapter == pytest.approx((kept[1] - kept[0]) / 2, rel=0.05), acting


@pytest.mark.parametrize("mixed", [False, True])
def test_dropout_before_the_adapter_gives_each_layer_a_copy_and_a_mask(mixed: bool, tmp_path: Path) -> None:
    kept, length = [], 128
    job = make_job({"adapter": {"r": 4, "lora_dropout": 0.1}}, bf16=mixed, per_device_train_batch_size=1)
    for layers in (2, 4):
        model, _ = add_lora(save_model(tmp_path / str(layers), "llama", layers=layers), job)
        kept.append(kept_by_autograd(model.train(), 1, length, mixed=mixed))
    s = setting(tmp_path / "4", job, length)
    copies = 2 * sum(linear.parameters for linear in s.shape.linears) / s.shape.layers if mixed else 0
    assert kernels.kept(s) * length + copies == pytest.approx((kept[1] - kept[0]) / 2, rel=0.05)


@pytest.mark.parametrize("form", ["full", "padded", "packed"])
@pytest.mark.parametrize("acting", [[], ["lora", "swiglu", "norm", "rope"]])
def test_every_step_of_recomputing_keeps_what_is_said(acting: list[str], form: str, tmp_path: Path) -> None:
    """The whole body of eight layers, without and with a mask, whose numbers each layer keeps."""
    rows, length = 3 if form == "padded" else 1, 192
    tables = {"adapter": {"r": 4}, "data": {"path": "rows.jsonl", "packing": form == "packed"}}
    for every in (0, 4, 2, 1):
        kwargs = {"every_n_layers": every} if every > 1 else None
        job = make_job(
            tables | {"model": {"max_seq_length": length}},
            per_device_train_batch_size=rows,
            kernels=acting or "none",
            gradient_checkpointing=every > 0,
            gradient_checkpointing_kwargs=kwargs,
        )
        folder = tmp_path / str(every)
        model, _ = add_lora(save_model(folder, "qwen3", layers=8), job)
        assert all(apply.install(part, model, "sft", acting).on for part in acting)
        if every:
            heed_layers(model)
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False, **(kwargs or {})})
        given: dict[str, Any] = {}
        if form == "padded":
            given["attention_mask"] = (torch.arange(length) < torch.tensor([[length], [100], [7]])).long()
        if form == "packed":
            given["position_ids"] = torch.cat([torch.arange(100), torch.arange(length - 100)])[None]
        real = kept_by_autograd(model.train(), rows, length, mixed=False, **given)
        seams.restore()
        s = setting(folder, job, length)
        said = kernels.activations(s, TRANSFORMERS, 0).layers - kernels.worked(s) * s.tokens
        said -= kernels.kept(s) * s.tokens if every else 0  # of the layer that is gone through
        said -= kernels.masked(s) * s.tokens  # which layers are given, and autograd does not see
        entry = s.stream * s.shape.hidden * s.tokens  # the embeddings
        assert real == pytest.approx(said + entry, rel=0.03), every


def test_eager_attention_keeps_all_scores(tmp_path: Path) -> None:
    length = 128
    tables = {"model": {"attn_implementation": "eager"}, "adapter": {"r": 4}}
    job = make_job(tables, per_device_train_batch_size=1)
    kept = []
    for layers in (2, 4):
        model = save_model(tmp_path / str(layers), "llama", layers=layers)
        model.set_attn_implementation("eager")
        model, _ = add_lora(model, job)
        kept.append(kept_by_autograd(model.train(), 1, length, mixed=False))
    expected = kernels.kept(setting(tmp_path / "4", job, length)) * length
    assert expected == pytest.approx((kept[1] - kept[0]) / 2, rel=0.05)


@pytest.mark.parametrize("adapter", [{}, {"finetune_vision_layers": False}, {"finetune_mlp_modules": False}], ids=str)
@pytest.mark.parametrize("arch", ["gemma3", "llava", "qwen2_5_vl"])
def test_a_vision_models_adapter_is_counted_part_by_part(arch: str, adapter: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    from support.tiny_vlm import make_vlm

    pytest.importorskip("PIL")
    if arch == "qwen2_5_vl":
        pytest.importorskip("torchvision")
    folder = make_vlm(tmp_path / "model", arch)
    job = make_job({"adapter": {"r": 4, **adapter}})
    facts = facts_of(folder)
    assert facts.shape is not None
    assert facts.shape.parameters == facts.parameters
    model, _ = add_lora(AutoModelForImageTextToText.from_pretrained(folder), job)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(footprint.trained(setting(folder, job))) == trained


@pytest.mark.parametrize("name", ["vision_tower", "multi_modal_projector"])
def test_a_whole_part_of_a_vision_model_that_is_trained_is_counted(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    from support.tiny_vlm import make_vlm

    pytest.importorskip("PIL")
    folder = make_vlm(tmp_path / "model", "llava")
    table = {"r": 4, "target_modules": ["q_proj"], "modules_to_save": [name], "finetune_vision_layers": False}
    job = make_job({"adapter": table})
    model, _ = add_lora(AutoModelForImageTextToText.from_pretrained(folder), job)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(footprint.trained(setting(folder, job))) == trained
    bare_facts = replace(facts_of(folder), path=None, parameters=None)
    found = bare(CPU, job, bare_facts, TRANSFORMERS, None)
    assert found is not None
    note = next(part.note for part in found.parts if part.name == "adapter")
    assert note is not None
    assert f"without {name}, of unknown size" in note
