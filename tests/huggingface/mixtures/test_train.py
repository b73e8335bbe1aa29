"""Mixtures of experts train on what the plan says, and are exported and loaded again."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file

from forge.errors import ModelError
from forge_huggingface.memory import footprint
from forge_huggingface.memory.kernels import TRANSFORMERS
from forge_huggingface.memory.parts import setting_of
from forge_huggingface.model.adapt import add_lora
from forge_huggingface.rules.experts import UNBALANCED
from forge_huggingface.rules.training import ROUTED
from support.measuring import CPU, facts_of, make_job
from support.projects import json_of
from support.tiny_moe import FAMILIES, make_mixture

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Finished, Project

OLD = Version(version("transformers")) < Version(ROUTED)
FULL: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}


def mixture(project: Project, family: str, **changes: Any) -> Any:
    """Put a mixture in place of a project's model."""
    shutil.rmtree(project.folder / "model")
    return make_mixture(project.folder / "model", family, **changes)


def trained(project: Project, family: str, adapter: dict[str, Any], **tables: Any) -> Finished:
    """Train eight steps."""
    alone = {"router_aux_loss_coef": 0} if family == "granitemoe" and OLD else {}
    tables["train"] = {"max_steps": 8, **alone, **tables.get("train", {})}
    project.write(adapter=adapter, **tables)
    done = project.perform()
    assert done.code == 0, done.printed
    return done


def gguf_works() -> bool:
    return find_spec("xllamacpp") is not None and find_spec("libggml") is not None


def adapter_of(done: Finished) -> dict[str, torch.Tensor]:
    return dict(load_file(done.folder.path / "adapter" / "adapter_model.safetensors"))


def counted(done: Finished) -> tuple[int, int]:
    """Return how many values of the adapter the plan counts, and how many were trained."""
    estimate = done.folder.plan().estimate
    assert estimate is not None
    planned = next(part.bytes for part in estimate.parts if part.name == "adapter")
    return (planned or 0) // 4, done.of_kind("adapted")[0]["trainable"]


def test_auto_leaves_the_experts_and_says_so(project: Project) -> None:
    mixture(project, "qwen3_moe")
    done = trained(project, "qwen3_moe", {})
    assert {name.split(".")[-3] for name in adapter_of(done)} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    said = next(each for each in done.folder.plan().decisions if each.key == "adapter.target_parameters")
    assert said.value == []
    assert 'target_parameters = ["experts"] adapts the experts with 3.58 k more values' in said.reason
    planned, real = counted(done)
    assert planned == real


def adapted(model: Any, folder: Path, **table: Any) -> tuple[Any, set[str], Any]:
    """Return the model with an adapter, the names of what has one, and what the plan knows of the model."""
    job = make_job({"adapter": {"r": 4, **table}})
    wrapped, _ = add_lora(model, job)
    setting = setting_of(CPU, job, facts_of(folder), TRANSFORMERS, None)
    assert setting is not None
    names = {name.split(".lora_")[0] for name, value in wrapped.named_parameters() if value.requires_grad}
    return wrapped, {name.removeprefix("base_model.model.model.") for name in names}, setting[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_adapted_by_one_word_and_the_router_is_not(family: str, tmp_path: Path) -> None:
    model, names, setting = adapted(make_mixture(tmp_path, family), tmp_path, target_parameters=["experts"])
    assert {name.rpartition(".experts")[2] for name in names if "experts" in name} == {"", ".base_layer"}
    assert not [name for name in names if name.endswith((".gate", ".router"))]
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert sum(footprint.trained(setting)) == trained
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
        assert torch.allclose(model.merge_and_unload()(input_ids=ids).logits, wanted, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", ["auto", "all-linear", r"model\.layers\.0\.self_attn\.o_proj"])
def test_peft_does_not_turn_targets_of_a_mixture_into_others(family: str, targets: str, tmp_path: Path) -> None:
    """It would adapt router and experts under all-linear, and every layer under a regular expression for one."""
    model, names, setting = adapted(make_mixture(tmp_path, family), tmp_path, target_modules=targets)
    if targets.endswith("o_proj"):
        assert names == {"layers.0.self_attn.o_proj"}
    else:
        assert {name.split(".")[2] for name in names} == {"self_attn"}
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert sum(footprint.trained(setting)) == trained


def test_layers_that_peft_takes_for_experts_cannot_be_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="peft takes down_proj, gate_proj, up_proj of this family for its experts"):
        adapted(make_mixture(tmp_path, "deepseek_v3"), tmp_path, target_modules=["o_proj", "shared_experts.up_proj"])


@pytest.mark.parametrize("kernels", [pytest.param("none", marks=pytest.mark.slow), ["loss"]])
def test_the_loss_of_the_router_is_in_the_loss(project: Project, kernels: Any) -> None:
    mixture(project, "qwen3_moe")
    train = {"max_steps": 1, "kernels": kernels, "per_device_train_batch_size": 4}
    plain = trained(project, "qwen3_moe", {}, train={**train, "router_aux_loss_coef": 0.0}).of_kind("step")[0]
    more = trained(project, "qwen3_moe", {}, train={**train, "router_aux_loss_coef": 0.5}).of_kind("step")[0]
    assert "aux_loss" not in plain
    assert more["loss"] - plain["loss"] == pytest.approx(0.5 * more["aux_loss"], rel=1e-3)


def test_the_models_own_weight_of_that_loss_is_decided_and_keeps_batches_whole(project: Project) -> None:
    mixture(project, "mixtral", router_aux_loss_coef=0.02)
    plan = project.prepare()[0].plan
    said = next(each for each in plan.decisions if each.key == "train.router_aux_loss_coef")
    assert (said.value, said.reason) == (
        0.02,
        "the loss that keeps the experts evenly used is added, as the model's config.json says",
    )


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [{}, {"target_parameters": ["experts"]}, FULL], ids=["auto", "experts", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_planned_trained_exported_and_loaded_again(
    project: Project, family: str, adapter: dict[str, Any], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = mixture(project, family).eval()
    written = family in {"granitemoe", "mixtral", "olmoe", "qwen3_moe"} and gguf_works() and adapter != FULL
    files = [{"format": "gguf", "types": ["f32"]}] if written else []
    done = trained(project, family, adapter, export=[{"format": "merged"}, *files])
    steps = done.of_kind("step")
    assert all(("aux_loss" in step) != (family in UNBALANCED or (family == "granitemoe" and OLD)) for step in steps)
    ids = torch.randint(5, 300, (2, 24), generator=torch.Generator().manual_seed(1))

    def says(model: Any) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = model.eval()(input_ids=ids).logits
        return logits

    if adapter == FULL:
        saved = done.folder.path / "model"
        here = json_of(project.folder / "model" / "config.json")
        assert json_of(saved / "config.json").keys() - {"use_cache"} <= here.keys()
        assert json.loads((saved / "config.json").read_text(encoding="utf-8"))["model_type"] == family
        assert (says(AutoModelForCausalLM.from_pretrained(saved)) - says(base)).abs().max() > 1e-3
        return
    planned, real = counted(done)
    assert planned == real
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(project.folder / "model"), done.folder.path / "adapter"
    )
    answers = says(loaded)
    assert (answers - says(base)).abs().max() > 1e-3
    printed = project.forge("export", str(done.folder.path))
    assert "merged model read back from disk" in printed
    assert len([*done.folder.path.glob("exports/*/*.gguf")]) == written  # each was compared with the trained model
    merged = next(path for path in done.folder.path.glob("exports/*merged") if path.is_dir())
    assert torch.allclose(says(AutoModelForCausalLM.from_pretrained(merged)), answers, atol=1e-4)
    again = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(project.folder / "model"), done.folder.path / "adapter"
    )
    assert torch.equal(says(again), answers)
