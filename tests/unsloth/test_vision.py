"""How Unsloth's vision models are loaded and adapted: by forge's choice of layers. A double stands in for them."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from forge.api import PluginError
from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.job.decisions import settle
from forge.job.read import parse
from forge.planning.planner import make_plan
from forge_huggingface.facts.describe import describe
from forge_huggingface.model import parts
from forge_unsloth_vision.adapt import adapt
from forge_unsloth_vision.load import load
from support import machines
from support.tiny_vlm import make_vlm

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = replace(machines.FIT, versions={**machines.FIT.versions, "pillow": "12.0"})
EVERY = {"type": "none", "r": None, "lora_alpha": None, "target_modules": None}


class Double:
    """Stands in for ``FastVisionModel``: transformers and peft, and notes of the arguments."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self.adapted: dict[str, Any] = {}
        self.training: dict[str, Any] = {}

    def from_pretrained(self, **arguments: Any) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText

        self.loaded = arguments
        model = AutoModelForImageTextToText.from_pretrained(arguments["model_name"], dtype=arguments["dtype"])
        model.requires_grad_(requires_grad=False)  # whatever Unsloth leaves, forge decides
        return model, SimpleNamespace()

    def get_peft_model(self, model: Any, **arguments: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        self.adapted = dict(arguments)
        for own in ("random_state", "use_gradient_checkpointing"):
            del arguments[own]
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **arguments))

    def for_training(self, model: Any, **arguments: Any) -> None:  # noqa: ARG002 - Unsloth's signature
        self.training = arguments


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Double:
    double, module = Double(), ModuleType("unsloth")
    vars(module).update(FastVisionModel=double, DEVICE_TYPE="cuda")
    monkeypatch.setitem(sys.modules, "unsloth", module)
    return double


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vlm(tmp_path_factory.mktemp("vlm") / "llava", "llava", dtype="bfloat16")


def prepared(tmp_path: Path, model: Path, **adapter: Any) -> tuple[Any, Run, list[Any]]:
    """Return the settled job and the run of a vision job that names Unsloth, on a machine that is fit for it."""
    catalogue = discover({"FORGE_PLUGINS": "huggingface,unsloth-vision"})
    table = {key: value for key, value in {"r": 4, **adapter}.items() if value is not None}
    text = tomli_w.dumps(
        {
            "model": {"id": str(model), "max_seq_length": 128},
            "data": {"path": "rows.jsonl"},
            "adapter": table,
            "use": {"backend": "unsloth"},
            "train": {"gradient_checkpointing": True, "seed": 7},
        }
    )
    file = parse(text, "job.toml", tmp_path, PluginKeys(catalogue))
    plan = make_plan(file, catalogue, MACHINE, describe(str(model), None, tmp_path))
    told: list[Any] = []
    return settle(file.job, plan.decisions), Run(folder=tmp_path, plan=plan, sink=told.append), told


def test_every_weight_is_trained_in_float32(tmp_path: Path, model: Path, double: Double) -> None:
    job, run, told = prepared(tmp_path, model, **EVERY)
    adapted = adapt(job, run, load(job, run, SimpleNamespace()))  # type: ignore[arg-type]  # a double
    modes = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "full_finetuning")
    assert [name for name in modes if double.loaded[name]] == ["full_finetuning"]
    assert not double.adapted
    assert all(parameter.requires_grad for parameter in adapted.model.parameters())
    values = told[-1].values
    assert (values["type"], values["trainable"], values["dtypes"]) == ("none", values["all"], ["float32"])
    assert double.training == {"use_gradient_checkpointing": "unsloth"}


@pytest.mark.parametrize("off", ["vision", "language"])
def test_the_parts_that_are_left_out_are_left_out_on_unsloth_too(
    tmp_path: Path, model: Path, double: Double, off: str
) -> None:
    job, run, told = prepared(tmp_path, model, **{f"finetune_{off}_layers": False})
    adapted = adapt(job, run, load(job, run, SimpleNamespace()))  # type: ignore[arg-type]  # a double
    assert double.loaded["load_in_16bit"]
    assert (double.adapted["r"], double.adapted["random_state"]) == (4, 7)
    count = parts.count(adapted.model)
    assert (count[off], told[-1].values["layers"]) == (0, count)
    assert sum(count.values()) > 0


def test_other_layers_than_the_jobs_are_an_error(
    tmp_path: Path, model: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run, _ = prepared(tmp_path, model)
    right = double.get_peft_model
    wrong: Any = lambda model, **arguments: right(model, **{**arguments, "target_modules": ["q_proj"]})  # noqa: E731
    monkeypatch.setattr(double, "get_peft_model", wrong)
    with pytest.raises(PluginError, match="Unsloth adapted"):
        adapt(job, run, load(job, run, SimpleNamespace()))  # type: ignore[arg-type]  # a double
