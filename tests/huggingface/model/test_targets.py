"""What LoRA adapts: names, a regular expression, parameters of experts; and what reaches nothing is told early."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file

from forge.errors import JobError, PlanError
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
        ({"target_parameters": "experts", "layers_to_transform": [0]}, "layers_to_transform is not for target_param"),
        ({"target_parameters": "experts", "init_lora_weights": "orthogonal"}, "is not for target_parameters in peft"),
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


def test_a_parameter_that_is_not_there_is_told(project: Project) -> None:
    project.write(adapter={"target_parameters": EXPERTS})
    done = project.perform()
    assert done.code != 0
    assert "the model has no experts in one parameter" in done.printed
