"""Which kernels a job gets on which machine, and why not the others."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import ForgeError, JobError, PlanError
from forge.job.job import load_job
from forge_huggingface.arguments import options
from forge_huggingface.arguments.tables import KERNELS
from forge_unsloth import rules as unsloth
from support.planning import BASE, CUDA, FACTS, planner, reasons

if TYPE_CHECKING:
    from forge.api.plan import Plan
    from forge.discovery.catalogue import Catalogue

GPU = CUDA
"""A machine that is planned for by name: torch brings Triton there."""

NO_TRITON = replace(GPU, versions={name: version for name, version in GPU.versions.items() if name != "triton"})
EVERY = list(KERNELS)
LEAN = options.lean_nll()


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    """Return what plans a job for the transformers backend."""
    made = planner(catalogue)
    return lambda text=BASE, machine=GPU, **more: made(f'{text}[use]\nbackend = "huggingface"\n', machine, **more)


def taken(plan: Plan) -> Any:
    """Return the kernels of a plan, decided or named."""
    return plan.decided("train.kernels") or plan.job["train"]["kernels"]


@pytest.mark.parametrize(
    ("text", "parts", "why"),
    [
        ("", EVERY, "fused kernels of the same arithmetic"),
        ("[adapter]\nlora_dropout = 0.1\n", [x for x in EVERY if x != "lora"], "not lora: it is for LoRA without DoRA"),
        ('[adapter]\ntype = "none"\n', ["swiglu", "norm", "rope", "mask"], "not loss: the output layer is trained"),
        ('[adapter]\nmodules_to_save = ["lm_head"]\n', EVERY[1:], "not loss: the output layer is trained"),
        ("[train]\ntorch_compile = true\n", "none", "torch_compile makes kernels of its own"),
        ("[train]\nuse_liger_kernel = true\n", ["loss"] * LEAN + ["lora", "mask"], "use_liger_kernel brings its own"),
        ('[train]\nmethod = "orpo"\n', EVERY[1:5], "not mask: this method needs it"),
        ('[train]\nmethod = "reward"\n', EVERY[1:], "predicts no words"),
        ('[train]\nkernels = "none"\n', "none", None),
        ('[train]\nkernels = ["norm"]\n', ["norm"], None),
        ('[train]\nkernels = "auto"\n', EVERY, "fused kernels"),
    ],
    ids=str,
)
def test_a_gpu_gets_all_that_can_serve(plan: Any, text: str, parts: Any, why: str | None) -> None:
    machine = replace(GPU, versions={**GPU.versions, "liger-kernel": "0.8.5"})
    found = plan(f"{BASE}{text}", machine)
    assert taken(found) == parts
    assert (why is None) == ("train.kernels" not in reasons(found))
    assert why is None or why in reasons(found)["train.kernels"]


@pytest.mark.parametrize("machine", ["linux-cpu", "macos", "linux-rocm"])
def test_other_machines_get_none_unless_parts_are_named(catalogue: Catalogue, machine: str) -> None:
    found = planner(catalogue)(BASE, machine)
    assert found.decided("train.kernels") == "none"
    assert "they are for NVIDIA GPUs" in reasons(found)["train.kernels"]
    named = planner(catalogue)(f'{BASE}[train]\nkernels = ["lora", "loss"]\n', machine)
    assert taken(named) == ["lora", "loss"]


def test_without_triton_there_is_what_torch_can_do(plan: Any) -> None:
    found = plan(machine=NO_TRITON)
    assert found.decided("train.kernels") == ["lora", "mask"]
    assert "not loss, swiglu, norm, rope: triton is not installed" in reasons(found)["train.kernels"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('kernels = ["lora"]\ntorch_compile = true', "torch_compile makes kernels of its own"),
        ('kernels = ["norm"]\nuse_liger_kernel = true', "use_liger_kernel brings its own norm"),
        ('kernels = ["lara"]', "lora"),
        ('kernels = "all"', "kernels"),
    ],
)
def test_what_contradicts_itself_is_refused(plan: Any, keys: str, said: str) -> None:
    machine = replace(GPU, versions={**GPU.versions, "liger-kernel": "0.8.5"})
    with pytest.raises(ForgeError, match=re.escape(said)):
        plan(f"{BASE}[train]\n{keys}\n", machine)


def test_lora_is_refused_where_there_is_no_adapter(plan: Any) -> None:
    with pytest.raises(JobError, match="there is no adapter for lora"):
        plan(f'{BASE}[adapter]\ntype = "none"\n[train]\nkernels = ["lora"]\n')


def test_unsloth_brings_its_own(plan: Any) -> None:
    named, job = (load_job(plan(f"{BASE}[train]\nkernels = {value}\n").job) for value in ('["lora"]', '"auto"'))
    assert "kernels: Unsloth brings its own" in str(unsloth.cannot_arguments(named))
    assert unsloth.cannot_arguments(job) is None
    decided = {decision.key: decision.value for decision in unsloth.decide(GPU, job, FACTS)}
    assert decided["train.kernels"] == "none"


@pytest.mark.skipif(LEAN, reason="TRL scales them since 1.15")
def test_logits_that_are_scaled_are_not_given_to_a_loss_that_forgets_it(plan: Any, catalogue: Catalogue) -> None:
    granite = replace(FACTS, model_type="granite")
    assert plan(facts=granite).decided("train.loss_type") == "chunked_nll"  # forge's own knows the scale
    found = planner(catalogue)(BASE, "linux-cpu", granite)
    assert found.decided("train.loss_type") == "nll"
    with pytest.raises(PlanError, match="does not scale the logits of granite"):
        planner(catalogue)(f'{BASE}[train]\nloss_type = "chunked_nll"\n', "linux-cpu", granite)
