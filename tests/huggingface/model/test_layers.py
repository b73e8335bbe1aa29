"""Chosen layers that are trained whole: which parameters, what is refused, and how many values the plan counts."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from forge.api import AdapterTable, ModelError
from forge.errors import JobError, PlanError
from forge_huggingface.model.layers import choose
from support.projects import Project


def model(*, tied: bool = False) -> Any:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def trained(table: dict[str, Any], *, tied: bool = False) -> set[str]:
    made = model(tied=tied)
    choose(made, AdapterTable.model_validate({"type": "layers", **table}))
    return {name.removeprefix("model.") for name, each in made.named_parameters() if each.requires_grad}


def of_layer(index: int) -> set[str]:
    return {name[6:] for name, _ in model().named_parameters() if name.startswith(f"model.layers.{index}.")}


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"layers_to_transform": [2]}, of_layer(2)),
        ({"layers_to_transform": [-1, 0]}, of_layer(2) | of_layer(0)),
        (
            {"layers_to_transform": [1], "target_modules": ["mlp"]},
            {f"layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
        ),
        ({"target_modules": ["o_proj"]}, {f"layers.{index}.self_attn.o_proj.weight" for index in range(3)}),
        (
            {"target_modules": r"lm_head\.weight|model\.layers\.[12]\.self_attn\.q_proj.*"},
            {"lm_head.weight", "layers.1.self_attn.q_proj.weight", "layers.2.self_attn.q_proj.weight"},
        ),
        ({"modules_to_save": ["lm_head", "model.norm"]}, {"lm_head.weight", "norm.weight"}),
    ],
)
def test_the_chosen_parameters_are_trained_and_no_others(table: dict[str, Any], names: set[str]) -> None:
    assert trained(table) == names


def test_a_tied_output_layer_is_the_embedding() -> None:
    assert trained({"modules_to_save": ["lm_head"]}, tied=True) == {"embed_tokens.weight"}


def test_a_new_head_is_trained_always_and_named() -> None:
    from transformers import LlamaForSequenceClassification

    made = LlamaForSequenceClassification(model().config)
    assert choose(made, AdapterTable(type="layers", layers_to_transform=[2])) == ["layer 2", "score"]
    names = {name for name, each in made.named_parameters() if each.requires_grad}
    assert "score.weight" in names


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"layers_to_transform": [3]}, "there is no layer 3"),
        ({"target_modules": ["nothing"]}, "nothing fits nothing"),
        ({"layers_to_transform": [0], "target_modules": ["lm_head"]}, "fits nothing in these layers"),
    ],
)
def test_what_is_not_there_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        trained(table)
    assert words in str(caught.value)


CLEAN = {"r": None, "lora_alpha": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter": {**CLEAN, "type": "layers"}}, "without layers"),
        ({"adapter": {"type": "layers", "layers_to_transform": [1]}}, "lora_alpha, r would do nothing"),
        ({"adapter": {**CLEAN, "type": "layers", "layers_to_transform": [9]}}, "the layers are 0 to 1"),
        (
            {
                "adapter": {**CLEAN, "type": "layers", "layers_to_transform": [1]},
                "train": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
            },
            "would get no gradient",
        ),
        (
            {
                "adapter": {**CLEAN, "type": "layers", "layers_to_transform": [1]},
                "model": {"load_in_4bit": True},
            },
            "quantised weights cannot be trained",
        ),
        (
            {
                "adapter": {**CLEAN, "type": "layers", "layers_to_transform": [1]},
                "export": [{"format": "adapter"}],
            },
            "no adapter to export",
        ),
        (
            {
                "adapter": {**CLEAN, "type": "layers", "layers_to_transform": [1]},
                "model": {"add_tokens": ["<tool>"]},
            },
            "leaves the embedding frozen",
        ),
    ],
)
def test_jobs_that_cannot_be_are_refused_when_planned(project: Project, changes: dict[str, Any], words: str) -> None:
    project.write(**changes)
    with pytest.raises((JobError, PlanError)) as caught:
        project.prepare()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "table", [{"layers_to_transform": [1]}, {"modules_to_save": ["lm_head"], "layers_to_transform": [0, 1]}]
)
def test_the_plan_counts_the_values_that_are_trained(project: Project, table: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    project.write(adapter={**CLEAN, "type": "layers", **table})
    estimate = project.prepare()[1].plan().estimate
    made = AutoModelForCausalLM.from_pretrained(project.folder / "model")
    choose(made, AdapterTable.model_validate({"type": "layers", **table}))
    values = sum(each.numel() for each in made.parameters() if each.requires_grad)
    assert {part.name: part.bytes for part in estimate.parts}["gradients"] == 4 * values
