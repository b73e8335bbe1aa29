"""What LoRA adapts: names, a regular expression, parameters of experts; and what reaches nothing is told early."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file

from forge.errors import JobError, PlanError
from forge.model.facts import ModelFacts
from forge_huggingface.facts.shape import from_config
from forge_huggingface.memory.kernels import TRANSFORMERS
from forge_huggingface.memory.parts import bare
from forge_huggingface.rules.loading import cannot_adapt
from support.measuring import CPU, make_job
from support.projects import Project, json_of
from support.tiny_moe import make_mixture

if TYPE_CHECKING:
    from pathlib import Path

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
LAYER = "base_model.model.model.layers"


def names(folder: Path) -> set[str]:
    return {name.split(".lora_")[0] for name in load_file(folder / "adapter" / "adapter_model.safetensors")}


def test_a_regular_expression_is_for_whole_names(project: Project) -> None:
    project.write(adapter={"target_modules": r"model\.layers\.0\.self_attn\.(q|v)_proj"})
    done = project.perform()
    assert done.code == 0, done.printed
    assert names(done.folder.path) == {f"{LAYER}.0.self_attn.{letter}_proj" for letter in "qv"}
    kept = json_of(done.folder.path / "adapter" / "adapter_config.json")["target_modules"]
    assert kept == r"model\.layers\.0\.self_attn\.(q|v)_proj"
    adapter = next(part for part in done.folder.plan().estimate.parts if part.name == "adapter")
    assert adapter.bytes == 4 * done.of_kind("adapted")[0]["trainable"]


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (["q_proj", "qproj"], "target_modules: qproj fits no layer of the model; there are .*q_proj"),
        (r"layers\..*\.wq", "fits no layer of the model"),
    ],
)
def test_targets_that_reach_nothing_are_told_when_planned(project: Project, targets: Any, why: str) -> None:
    project.write(adapter={"target_modules": targets})
    with pytest.raises(PlanError, match=why):
        project.prepare()


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ({"target_modules": "(q_proj"}, "target_modules is no regular expression"),
        ({"target_parameters": EXPERTS, "lora_dropout": 0.1}, "lora_dropout is not for target_parameters"),
        ({"target_parameters": EXPERTS, "use_dora": True}, "use_dora is not for target_parameters"),
        ({"target_parameters": ["experts"], "layers_to_transform": [0]}, "layers_to_transform is not for target_param"),
        ({"target_parameters": ["experts"], "init_lora_weights": "orthogonal"}, "is not for target_parameters in peft"),
    ],
)
def test_what_contradicts_itself_is_a_mistake(project: Project, adapter: dict[str, Any], why: str) -> None:
    project.write(adapter=adapter)
    with pytest.raises(JobError, match=why):
        project.prepare()


def test_layers_of_experts_are_told_to_be_parameters(project: Project) -> None:
    shutil.rmtree(project.folder / "model")
    make_mixture(project.folder / "model", "qwen3_moe")
    project.write(adapter={"target_modules": ["q_proj", "gate_proj"]})
    with pytest.raises(PlanError, match="write target_parameters"):
        project.prepare()


@pytest.mark.parametrize(
    ("config", "targets", "why"),
    [
        ({"model_type": "qwen2"}, ["q_proj", "nothing_proj"], "nothing_proj fits no layer of the model; there are"),
        ({"model_type": "qwen2"}, ".*experts.*", "fits no layer of the model"),
        ({"model_type": "qwen2"}, ["self_attn"], "is a block of several modules; name layers in it: k_proj"),
        ({"model_type": "qwen2"}, r"model\.layers\.[01]\.mlp\.up_proj", None),
        ({"model_type": "qwen3_moe", "num_experts": 8}, ".*mlp.experts.*", 'write target_parameters = ["experts"]'),
        ({"model_type": "qwen3_moe", "num_experts": 8}, ["q_proj"], None),
    ],
)
def test_targets_are_told_from_config_json_alone_where_the_family_is_known(
    config: dict[str, Any], targets: Any, why: str | None
) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 99, **config}
    facts = ModelFacts(id="m", source="hub", task="text", shape=from_config(sizes), model_type=config["model_type"])
    found = cannot_adapt(CPU, make_job({"adapter": {"target_modules": targets}}), facts)
    assert found is None if why is None else why in (found or "")


def test_an_adapter_of_layers_that_nothing_is_known_of_is_unknown_and_not_empty() -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 99}
    facts = ModelFacts(id="m", source="hub", task="text", shape=from_config(sizes), model_type="strange")
    found = bare(CPU, make_job({"adapter": {"target_modules": ["Wqkv"]}}), facts, TRANSFORMERS, 64)
    assert found is not None
    part = next(part for part in found.parts if part.name == "adapter")
    assert (part.bytes, part.note) == (None, "config.json alone names no such layer; the files, or loading, tell")


def test_a_parameter_that_is_not_there_is_told(project: Project) -> None:
    project.write(adapter={"target_parameters": EXPERTS})
    done = project.perform()
    assert done.code != 0
    assert "the model has no experts in one parameter" in done.printed
