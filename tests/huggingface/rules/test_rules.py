"""What is decided for each machine and why, and what is refused before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Stage
from forge.errors import JobError, PlanError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.machine.machine import Accelerator
from forge.machine.presets import PRESETS
from support.planning import BASE, CUDA, FACTS, HELD_OUT, planner, reasons

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue
    from forge.machine.machine import Machine

OLD_GPU = replace(CUDA, accelerators=(Accelerator("cuda", "Tesla T4", 16 * 2**30, "7.5", "580.95"),))

FOUR = BASE.replace('id = "m"', 'id = "m"\nload_in_4bit = true')

EIGHT = FOUR.replace("4bit", "8bit")


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


@pytest.mark.parametrize(
    ("machine", "dtype", "bf16", "fp16", "why"),
    [
        ("linux-cuda", "bfloat16", True, False, "the GPU computes in bfloat16"),
        ("linux-cpu", "float32", False, False, "no GPU is used"),
        ("windows-cpu", "float32", False, False, "no GPU is used"),
        ("windows-cuda-cpu-torch", "float32", False, False, "no GPU is used"),
        ("macos", "float32", False, False, "mixed precision is not reliable on Apple's GPUs"),
    ],
)
def test_precision_goes_by_the_machine_and_says_why(
    plan: Any, machine: str, dtype: str, bf16: bool, fp16: bool, why: str
) -> None:
    found = plan(machine=machine)
    assert (found.decided("model.dtype"), found.decided("train.bf16"), found.decided("train.fp16")) == (
        dtype,
        bf16,
        fp16,
    )
    assert reasons(found)["train.bf16"] == why
    assert all(decision.reason for decision in found.decisions)


def test_a_gpu_without_bfloat16_gets_float16(plan: Any) -> None:
    found = plan(machine=OLD_GPU)
    assert (found.decided("model.dtype"), found.decided("train.bf16"), found.decided("train.fp16")) == (
        "float16",
        False,
        True,
    )
    assert reasons(found)["train.fp16"] == "the GPU has no bfloat16"


def test_full_fine_tuning_keeps_its_weights_in_32_bit(plan: Any) -> None:
    found = plan(BASE + '[adapter]\ntype = "none"\n')
    assert found.decided("model.dtype") == "float32"
    assert "small updates vanish in 16 bit" in reasons(found)["model.dtype"]
    assert (found.decided("train.bf16"), found.decided("train.learning_rate")) == (True, 2e-5)
    assert plan().decided("train.learning_rate") == 2e-4


def test_what_the_job_says_is_no_decision(plan: Any) -> None:
    text = BASE.replace('id = "m"', 'id = "m"\ndtype = "float32"\nattn_implementation = "eager"')
    found = plan(text + "[train]\nlearning_rate = 1.0\nbf16 = false\nfp16 = false\n")
    assert {"model.dtype", "model.attn_implementation", "train.learning_rate", "train.bf16", "train.fp16"}.isdisjoint(
        reasons(found)
    )


def test_flash_attention_is_taken_only_where_it_is_installed_and_runs(plan: Any) -> None:
    def attention(machine: Machine) -> Any:
        return plan(machine=machine).decided("model.attn_implementation")

    def flash(machine: Machine) -> Machine:
        return replace(machine, versions={**machine.versions, "flash-attn": "2.8"})

    assert attention(CUDA) == "sdpa"
    assert attention(flash(CUDA)) == "flash_attention_2"
    assert attention(flash(OLD_GPU)) == "sdpa"
    assert attention(flash(PRESETS["linux-cpu"])) == "sdpa"


@pytest.mark.parametrize(
    ("text", "machine", "reason"),
    [
        (FOUR, "linux-cuda", None),
        (FOUR, "linux-cpu", None),
        (FOUR, "windows-cpu", "load_in_4bit needs bitsandbytes, which is not installed (pip install bitsandbytes)"),
        (FOUR, "macos", "load_in_4bit needs bitsandbytes"),
        (FOUR, "windows-cuda-cpu-torch", None),
        (EIGHT, "linux-cuda", None),
        (EIGHT, "linux-cpu", "trains 8 bit on a GPU only; take load_in_4bit"),
    ],
)
def test_quantised_loading_is_planned_or_refused_with_a_reason_and_never_forgotten(
    plan: Any, text: str, machine: str, reason: str | None
) -> None:
    if reason is None:
        found = plan(text, machine)
        assert found.step(Stage.LOAD).plugin == "huggingface"
        assert settle(load_job(found.job), found.decisions).model.bits == ("4bit" if text == FOUR else "8bit")
    else:
        with pytest.raises(PlanError, match=re.escape(reason)) as caught:
            plan(text, machine)
        assert str(caught.value).startswith("nothing can load: huggingface: ")


def test_bitsandbytes_has_no_kernels_for_apple_silicon_even_if_installed(plan: Any) -> None:
    mac = replace(PRESETS["macos"], versions={**PRESETS["macos"].versions, "bitsandbytes": "0.50"})
    with pytest.raises(PlanError, match="bitsandbytes has no kernels for darwin arm64"):
        plan(FOUR, mac)


def test_quantised_weights_are_not_trained_whole(plan: Any) -> None:
    with pytest.raises(PlanError, match="quantised weights cannot be trained; use an adapter"):
        plan(FOUR + '[adapter]\ntype = "none"\n')
    with pytest.raises(PlanError, match="the model is stored in gptq"):
        plan(BASE + '[adapter]\ntype = "none"\n', facts=replace(FACTS, quantized="gptq"))


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        (f"{BASE}streaming = true\n", "data.streaming", 5),
        (f'{BASE}streaming = true\n[train]\nmax_steps = 5\nsave_strategy = "epoch"\n', "train.save_strategy", 8),
        (
            f'{BASE}streaming = true\n[train]\nmax_steps = 5\ntrain_sampling_strategy = "group_by_length"\n',
            "train.train_sampling_strategy",
            8,
        ),
        (f'{BASE}on_long_row = "split"\nformat = "messages"\n', "data.on_long_row", 5),
        (f'{BASE}on_long_row = "split"\n[train]\nmethod = "dpo"\n', "data.on_long_row", 5),
        (f'{BASE}[train]\neval_strategy = "epoch"\n', "train.eval_strategy", 6),
        (f"{BASE}[train]\nseed = 1\nearly_stopping_patience = 2\n", "train.early_stopping_patience", 7),
        (f'{BASE}[adapter]\ntype = "none"\n[[export]]\nformat = "adapter"\n', "export.0.format", 8),
        (
            f'{BASE}[adapter]\ntype = "none"\n[[export]]\nformat = "merged"\n[[export]]\nformat = "adapter"\n',
            "export.1.format",
            10,
        ),
    ],
)
def test_a_contradiction_between_tables_is_a_mistake_of_the_job_with_its_line(
    plan: Any, text: str, where: str, line: int
) -> None:
    with pytest.raises(JobError) as caught:
        plan(text)
    assert [(problem.where, problem.line) for problem in caught.value.problems] == [(where, line)]
    assert caught.value.problems[0].do


def test_streaming_with_max_steps_and_evaluation_with_rows_are_planned(plan: Any) -> None:
    plan(f"{BASE}streaming = true\npacking = true\n[train]\nmax_steps = 5\n")
    found = plan(f'{HELD_OUT}[train]\neval_strategy = "epoch"\nearly_stopping_patience = 2\n')
    assert "train.eval_strategy" not in reasons(found)


def test_held_out_rows_are_used_even_if_the_job_does_not_say_when(plan: Any) -> None:
    assert plan(HELD_OUT).decided("train.eval_strategy") == "epoch"
    assert plan().decided("train.eval_strategy") == "no"
    streamed = plan(f'{BASE}eval_path = "rows.jsonl"\nstreaming = true\n[train]\nmax_steps = 5\nsave_steps = 3\n')
    assert streamed.decided("train.eval_strategy") == "steps"
    assert streamed.decided("train.eval_steps") == 3
    best = '[train]\nload_best_model_at_end = true\nsave_strategy = "steps"\n'
    assert plan(HELD_OUT + best).decided("train.eval_strategy") == "steps"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ('report_to = "wandb"', 'report_to = "wandb": wandb is not installed (pip install wandb)'),
        ('report_to = ["none", "mlflow"]', "(pip install mlflow)"),
        ('report_to = "wandbb"', 'report_to = "wandbb": no such tracker; there are azure_ml'),
        ("use_liger_kernel = true", "(pip install liger-kernel)"),
        ('optim = "adamw_bnb_8bit"', None),
        ("bf16 = true", None),
    ],
)
def test_what_an_argument_needs_is_checked_before_anything_starts(plan: Any, keys: str, reason: str | None) -> None:
    if reason is None:
        plan(f"{BASE}[train]\n{keys}\n")
    else:
        with pytest.raises(PlanError, match=re.escape(reason)):
            plan(f"{BASE}[train]\n{keys}\n")


def test_precision_that_the_machine_lacks_is_refused(plan: Any) -> None:
    with pytest.raises(PlanError, match="fp16: float16 training needs a GPU"):
        plan(f"{BASE}[train]\nfp16 = true\n", "linux-cpu")
    with pytest.raises(PlanError, match="bf16: this GPU has no bfloat16; write fp16"):
        plan(f"{BASE}[train]\nbf16 = true\n", OLD_GPU)
