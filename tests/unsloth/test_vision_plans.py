"""Which backend a vision job gets, and why not the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import PlanError
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from forge.testing import check_implementation, check_plugin

if TYPE_CHECKING:
    from forge.api.plan import Plan
    from forge.discovery.catalogue import Catalogue
    from forge.machine.machine import Machine

EXAMPLES = Path(__file__).parents[2] / "examples"
UNSLOTH = {
    "torchvision": "0.28.0",
    "unsloth": "2026.10.7",
    "unsloth-zoo": "2026.10.7",
    "transformers": "5.17.0",
    "trl": "1.14.2",
    "datasets": "4.8.5",
    "triton": "3.6.0",
    "bitsandbytes": "0.50.2",
}
QWEN: dict[str, Any] = {
    "id": "m",
    "source": "hub",
    "architectures": ("Qwen2_5_VLForConditionalGeneration",),
    "model_type": "qwen2_5_vl",
    "task": "vision",
    "context": 32768,
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return discover({"FORGE_PLUGINS": "huggingface,unsloth-text,unsloth-vision"})


def fit(label: str = "linux-cuda", **versions: str) -> Machine:
    machine = PRESETS[label]
    return replace(machine, versions={**machine.versions, **UNSLOTH, **versions})


def plan(catalogue: Catalogue, machine: Machine, facts: dict[str, Any] | None = None, **tables: Any) -> Plan:
    text = tomli_w.dumps({"model": {"id": "m"}, "data": {"path": "d.jsonl"}, **tables})
    file = parse(text, "job.toml", Path(), PluginKeys(catalogue))
    return make_plan(file, catalogue, machine, ModelFacts(**{**QWEN, **(facts or {})}))


def chosen(made: Plan) -> dict[str, str]:
    return {step.stage.value: step.plugin for step in made.steps}


def reason(made: Plan, plugin: str = "unsloth-vision", label: str = "load") -> str:
    return next(each.reason for each in made.verdicts if each.plugin == plugin and each.label == label)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_a_vision_job_on_a_fit_machine_runs_on_unsloth(catalogue: Catalogue, model_type: str) -> None:
    made = plan(catalogue, fit(), {"model_type": model_type})
    assert chosen(made) == {
        "collate": "huggingface",
        "load": "unsloth-vision",
        "adapt": "unsloth-vision",
        "train": "huggingface",
    }
    assert made.preload[0] == "unsloth"
    assert "does not do vision" in reason(made, "unsloth-text")


@pytest.mark.parametrize(
    ("label", "why"),
    [("windows-cpu", "platform is win32"), ("macos", "platform is darwin"), ("linux-cpu", "accelerator")],
)
def test_other_machines_fall_back_and_say_why(catalogue: Catalogue, label: str, why: str) -> None:
    made = plan(catalogue, fit(label))
    assert set(chosen(made).values()) == {"huggingface"}
    assert why in reason(made)


@pytest.mark.parametrize(
    ("facts", "tables", "why"),
    [
        ({"model_type": "idefics3"}, {}, "does not list the vision architecture idefics3"),
        ({"model_type": "qwen2_vl"}, {}, "has not compared qwen2_vl"),
        ({}, {"model": {"id": "m", "load_in_4bit": True}}, "on vision models in 4bit yet"),
        ({}, {"model": {"id": "m", "load_in_8bit": True}}, "on vision models in 8bit yet"),
        ({}, {"model": {"id": "m", "max_seq_length": -1}}, "max_seq_length = -1"),
        ({}, {"train": {"use_cpu": True}}, "use_cpu"),
        ({}, {"adapter": {"type": "none", "finetune_vision_layers": False}}, "finetune_vision_layers with all weights"),
        ({}, {"adapter": {"use_dora": True}}, "dora"),
        ({}, {"adapter": {"modules_to_save": ["lm_head"]}}, "modules_to_save"),
    ],
)
def test_other_models_and_jobs_fall_back_and_say_why(
    catalogue: Catalogue, facts: dict[str, Any], tables: dict[str, Any], why: str
) -> None:
    made = plan(catalogue, fit(), facts, **tables)
    assert {chosen(made)["load"], chosen(made)["adapt"]} == {"huggingface"}
    assert any(why in each.reason for each in made.verdicts if each.plugin == "unsloth-vision")


def test_a_family_that_was_compared_in_4_bit_runs_so_on_unsloth(catalogue: Catalogue) -> None:
    made = plan(catalogue, fit(), {"model_type": "qwen3_vl"}, model={"id": "m", "load_in_4bit": True})
    assert chosen(made)["load"] == "unsloth-vision"


def test_naming_an_unfit_backend_is_an_error(catalogue: Catalogue) -> None:
    with pytest.raises(PlanError, match="idefics3"):
        plan(catalogue, fit(), {"model_type": "idefics3"}, use={"backend": "unsloth"})


def test_unsloths_collator_comes_only_by_name(catalogue: Catalogue) -> None:
    made = plan(catalogue, fit(), use={"collate": "unsloth-vision"})
    assert chosen(made)["collate"] == chosen(made)["load"] == "unsloth-vision"
    with pytest.raises(PlanError):
        plan(catalogue, fit(), use={"collate": "unsloth-vision", "backend": "huggingface"})
    assert "name it" in reason(plan(catalogue, fit()), label="collate")


@pytest.mark.filterwarnings("ignore:.* is not imported")  # where Unsloth is not installed
def test_the_plugin_keeps_the_contract() -> None:
    plugin = check_plugin("unsloth-vision")
    for offer in plugin.offers:
        check_implementation(offer)


def test_the_heads_of_turns_are_read_from_the_template(models: Any) -> None:
    from transformers import AutoProcessor

    from forge_unsloth_vision.collate import heads

    processor = AutoProcessor.from_pretrained(models("idefics3"))
    assert heads(processor) == ("<|im_start|>user\n", "<|im_start|>assistant\n")


@pytest.mark.parametrize("name", ["vision_digits", "ocr", "captioning"])
def test_the_examples_jobs_can_be_planned(catalogue: Catalogue, name: str) -> None:
    path = EXAMPLES / name / "job.toml"
    file = parse(path.read_text(encoding="utf-8"), str(path), path.parent, PluginKeys(catalogue))
    made = make_plan(file, catalogue, fit(), ModelFacts(**QWEN))
    assert chosen(made)["train"] == "huggingface"
