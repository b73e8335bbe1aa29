"""Every switch and choice, one at a time: what the plan lets through, the trainer's own arguments take."""

from __future__ import annotations

import importlib
import typing
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest
import tomli_w

from forge.errors import ForgeError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.machine.presets import PRESETS
from forge_huggingface.arguments.fields import table
from forge_huggingface.arguments.options import filled_in, train_options
from forge_huggingface.arguments.owned import REWARD_KEYS
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.packages import TRAINING
from forge_huggingface.training.train import DERIVED
from support.planning import FACTS, planner

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue

CPU = PRESETS["linux-cpu"]
THERE = replace(
    CPU,
    versions={
        **CPU.versions,
        **{text.split(">")[0]: "9.9" for package in TRAINING for text in package.requires},
    },
)
"""A CPU with every package that a value may need."""

NEEDED: dict[str, dict[str, Any]] = {
    "distill": {"teacher_model_name_or_path": "t"},
    "grpo": {"reward": [{"use": "length", "args": {"max": 9}}], "num_generations": 4},
    "rloo": {"reward": [{"use": "length", "args": {"max": 9}}], "num_generations": 4},
}


def values(annotation: Any) -> list[Any]:
    """Return what a switch or a choice may be."""
    if annotation is bool:
        return [True, False]
    if typing.get_origin(annotation) is Literal:
        return [value for value in typing.get_args(annotation) if value is not None]
    return [value for each in typing.get_args(annotation) for value in values(each)]


def config_class(name: str) -> Any:
    """Return the installed class of a method's arguments."""
    for module in (
        "trl",
        "trl.experimental.orpo",
        "trl.experimental.cpo",
        "trl.experimental.distillation",
        "transformers",
    ):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            continue
        if found is not None:
            return found
    raise AssertionError(name)


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in {"sft", "grpo"} else pytest.mark.slow) for name in METHODS]
)
@pytest.mark.filterwarnings("ignore")  # of experimental trainers
@pytest.mark.parametrize("held_out", [True, False])
def test_what_the_plan_lets_through_the_trainer_takes(
    catalogue: Catalogue, method: str, held_out: bool, tmp_path: Any
) -> None:
    plan, config = planner(catalogue), METHODS[method].config
    kind, taken, wrong = config_class(config), 0, list[str]()
    data = {"path": "d.jsonl", **({"eval_size": 2} if held_out else {})}
    for name, field in train_options(method).model_fields.items():
        for value in dict.fromkeys(values(field.annotation)):
            train = {"method": method, **NEEDED.get(method, {}), name: value}
            text = tomli_w.dumps({"model": {"id": "m"}, "data": data, "train": train})
            try:
                made = plan(text, THERE, FACTS)
            except ForgeError:
                continue
            job = settle(load_job(made.job), made.decisions)
            options = {
                key: each for key, each in job.train.options.items() if key in table(config).keys() - REWARD_KEYS
            }
            given = filled_in(options, job.adapter.type, "bf16" if options.get("bf16") else None, config)
            given |= {"use_cpu": True, "report_to": "none"}
            taken += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made_config = kind(output_dir=str(tmp_path), **given)
            except (ValueError, TypeError, ImportError) as error:
                wrong.append(f"{name} = {value!r}: {error}")
                continue
            kept = name in given and type(value) is bool and name not in DERIVED | {"use_cpu"}
            if kept and getattr(made_config, name, value) != value:
                wrong.append(f"{name} = {value!r} became {getattr(made_config, name)!r}")
    assert not wrong
    assert taken > 30
