"""Where MLX serves a job, and where it does not, with its reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import AdapterTable, Job, ModelTable
from forge.cli.commands.doctor import examine
from forge.discovery.discover import discover
from forge.errors import PlanError
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.testing import check_plugin
from forge_mlx.checks import UNTRIED
from forge_mlx.rules import cannot_adapt, cannot_export, cannot_generate, cannot_load
from support.mlx import NEEDED
from support.planning import BASE, planner

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Plan

FACTS = ModelFacts(id="m", source="folder", model_type="llama", task="text", dtype="bfloat16")
MAC = PRESETS["macos-mlx"]
BY_NAME = '[use]\nbackend = "mlx"\n'


@pytest.fixture(scope="module")
def plan() -> Callable[..., Plan]:
    """Plan a short job with forge's own backends."""
    make = planner(discover({"FORGE_PLUGINS": "huggingface,mlx"}))

    def planned(text: str = "", machine: Any = MAC, facts: ModelFacts = FACTS, base: str = BASE) -> Plan:
        return make(base + text, machine, facts)

    return planned


def chosen(plan: Plan) -> set[str]:
    return {step.plugin for step in plan.steps if step.stage.value in {"load", "adapt", "train"}}


def reason(plan: Plan, label: str = "load", plugin: str = "mlx") -> str:
    return next(each.reason for each in plan.verdicts if (each.label, each.plugin) == (label, plugin))


@NEEDED
def test_the_plugin_keeps_its_contract() -> None:
    check_plugin("mlx")


def test_a_mac_with_the_packages_takes_mlx_by_itself_and_says_why(plan: Callable[..., Plan]) -> None:
    planned = plan()
    assert chosen(planned) == {"mlx"}
    assert reason(planned) == "preferred among those that can"
    decided = {each.key: (each.value, each.reason) for each in planned.decisions}
    assert decided["model.dtype"] == ("bfloat16", "the frozen base needs no more, and the adapter is kept in 32 bit")
    assert decided["train.learning_rate"][0] == 2e-4
    assert not {"train.kernels"} & decided.keys()


def test_a_plan_says_whose_four_bits_they_are(plan: Callable[..., Plan]) -> None:
    planned = plan("[model]\nid = 'm'\nload_in_4bit = true\n", base="[data]\npath = 'd.jsonl'\n")
    assert chosen(planned) == {"mlx"}
    (said,) = (each.reason for each in planned.decisions if each.key == "model.dtype")
    assert said == "the base is in 4bit in MLX's own groups, not in bitsandbytes', and unpacked to it"


def test_a_mac_without_the_packages_takes_transformers_and_says_what_to_install(plan: Callable[..., Plan]) -> None:
    planned = plan(machine="macos")
    assert chosen(planned) == {"huggingface"}
    missing = 'mlx is not installed, mlx-lm is not installed (pip install "mlx>=0.32" "mlx-lm>=0.32")'
    assert reason(planned) == missing
    assert {each.key: each.value for each in planned.decisions}["model.dtype"] == "float32"


def test_linux_takes_mlx_where_the_job_names_it_only(plan: Callable[..., Plan]) -> None:
    linux = replace(PRESETS["linux-cpu"], versions={**PRESETS["linux-cpu"].versions, **VERSIONS})
    assert chosen(plan(machine=linux)) == {"huggingface"}
    assert reason(plan(machine=linux)).startswith("it is made for Macs; here it computes on the processor")
    planned = plan(BY_NAME, linux)
    assert chosen(planned) == {"mlx"}
    assert {each.key: each.value for each in planned.decisions}["model.dtype"] == "float32"


VERSIONS = {name: MAC.versions[name] for name in ("mlx", "mlx-lm")}


def test_a_mac_with_intels_processor_takes_transformers(plan: Callable[..., Plan]) -> None:
    planned = plan(machine=replace(MAC, arch="x86_64", accelerators=()))
    assert chosen(planned) == {"huggingface"}
    assert reason(planned) == "MLX is for Macs with Apple's own processors, and this one has Intel's"


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("padding_free = true\n", "train", "padding_free: batches are filled up at the right; packing lays rows end"),
        (
            "[train]\nneftune_noise_alpha = 5\n",
            "train",
            "neftune_noise_alpha = 5.0: the loop of the plugin mlx does not",
        ),
        ('[adapter]\nmodules_to_save = ["lm_head"]\n', "adapt", "modules_to_save: with MLX, LoRA's matrices alone are"),
        ('[adapter]\nbias = "all"\n', "adapt", 'bias = "all": with MLX biases are trained with all weights'),
    ],
)
def test_what_it_cannot_do_is_a_reason_against_it_and_an_error_where_it_is_named(
    plan: Callable[..., Plan], text: str, label: str, said: str
) -> None:
    planned = plan(text)
    assert chosen(planned) == {"huggingface"}
    assert reason(planned, label).startswith(said)
    with pytest.raises(PlanError) as refused:
        plan(text + BY_NAME)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("lomo", 'optim = "lomo": with MLX there are adafactor, adagrad, '),
        ("adamw_8bit", 'optim = "adamw_8bit": its states are rounded by another library, and MLX\'s are in 32 bit'),
    ],
)
def test_an_optimizer_that_mlx_has_not_is_told_with_those_that_it_has(
    plan: Callable[..., Plan], optimizer: str, said: str
) -> None:
    with pytest.raises(PlanError) as refused:
        plan(f'[train]\noptim = "{optimizer}"\n' + BY_NAME)
    assert said in str(refused.value)


def test_an_optimizer_of_a_library_that_a_mac_lacks_is_mlx_own(plan: Callable[..., Plan]) -> None:
    assert "bitsandbytes" not in MAC.versions
    assert chosen(plan('[train]\noptim = "lion_32bit"\n')) == {"mlx"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "forge has not compared MLX's gpt2 with transformers'"),
        ({"task": "vision"}, "does not do vision"),
        ({"quantized": "bitsandbytes"}, "the model is stored in bitsandbytes"),
    ],
)
def test_a_model_that_it_does_not_know_is_transformers(
    plan: Callable[..., Plan], changes: dict[str, Any], said: str
) -> None:
    planned = plan(facts=replace(FACTS, **changes))
    assert chosen(planned) == {"huggingface"}
    assert reason(planned) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[use]\nbackend = "huggingface"\n',
            "which only MLX reads; take the model that it was made from, or, on a Mac",
        ),
        ('[adapter]\ntype = "none"\n', "it would be trained; use an adapter"),
        ("[model]\nid = 'm'\nload_in_4bit = true\n", "load_in_4bit: the model is stored in MLX's few bits already"),
        ('[[export]]\nformat = "merged"\n', 'format = "mlx" writes the merged model in 16 bit'),
    ],
)
def test_what_cannot_be_of_a_model_in_mlx_own_bits_is_told_while_planning(
    plan: Callable[..., Plan], text: str, said: str
) -> None:
    base = BASE if "[model]" not in text else "[data]\npath = 'd.jsonl'\n"
    with pytest.raises(PlanError) as refused:
        plan(text, facts=replace(FACTS, quantized="mlx"), base=base)
    assert said in str(refused.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_in_mlx_own_bits_keeps_the_scales_that_it_has(plan: Callable[..., Plan], dtype: str) -> None:
    planned = plan(facts=replace(FACTS, quantized="mlx", dtype=dtype))
    assert chosen(planned) == {"mlx"}
    (decided,) = (each for each in planned.decisions if each.key == "model.dtype")
    assert decided.value == ("bfloat16" if dtype == "bfloat16" else "float32")
    assert ("as it is stored" if dtype == "bfloat16" else "rounding its scales, stored in float16") in decided.reason


def test_a_key_that_a_later_forge_has_is_not_left_out_in_silence() -> None:
    class Later(AdapterTable):
        beginning: str | None = None

    class LaterModel(ModelTable):
        later: str | None = None

    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d.jsonl"}, "folder": Path("/jobs")})
    assert cannot_adapt(MAC, job, FACTS) is None
    other = job.model_copy(update={"adapter": Later(beginning="x")})
    assert cannot_adapt(MAC, other, FACTS) == "beginning: MLX's side of forge does not have it"
    drawn = job.model_copy(update={"adapter": AdapterTable.model_construct(init_lora_weights="pissa")})
    assert str(cannot_adapt(MAC, drawn, FACTS)).startswith('init_lora_weights = "pissa": it begins with a part of')
    model = job.model_copy(update={"model": LaterModel(id="m", later="y")})
    for refuses in (cannot_load, cannot_generate, cannot_export):
        assert refuses(MAC, model, FACTS) == "later: MLX's side of forge does not have it"


def test_doctor_lists_on_a_mac_what_must_still_be_tried() -> None:
    catalogue = discover({"FORGE_PLUGINS": "huggingface,mlx"})
    (mac,) = (line for line in examine(catalogue, MAC) if line["name"] == "mlx")
    said = [each["message"] for each in mac["checks"]]
    assert [f"{len(said)}: {task}" in text for text, task in zip(said, UNTRIED, strict=True)] == [True] * len(UNTRIED)
    for machine in (PRESETS["linux-cpu"], PRESETS["macos"]):  # the second has no MLX
        (line,) = (line for line in examine(catalogue, machine) if line["name"] == "mlx")
        assert [each["message"] for each in line["checks"]] == ["untried: ok"]
