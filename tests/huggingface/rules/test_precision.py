"""The precision of a job on each machine: weights, arithmetic, and what cannot be, all written out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from forge.errors import ForgeError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.machine.presets import PRESETS
from support.planning import FACTS, planner, reasons

if TYPE_CHECKING:
    from forge.api.plan import Plan
    from forge.discovery.catalogue import Catalogue

MACHINES = ("linux-t4", "linux-a100", "linux-h100", "linux-rocm", "macos", "linux-cpu")

MATRIX = """
lora                        | f16 fp16 | bf16 bf16 | bf16 bf16 | bf16 bf16 | f32 -  | f32 -
none                        | f32 fp16 | f32 bf16  | f32 bf16  | f32 bf16  | f32 -  | f32 -
lora 4bit                   | f16 fp16 | bf16 bf16 | bf16 bf16 | bf16 bf16 | no     | f32 -
lora 4bit fp16=true         | f16 fp16 | f16 fp16  | f16 fp16  | f16 fp16  | no     | no
lora fp16=true              | f16 fp16 | f16 fp16  | f16 fp16  | f16 fp16  | no     | no
lora bf16=true              | no       | bf16 bf16 | bf16 bf16 | bf16 bf16 | no     | f32 bf16
lora bf16=false             | f16 fp16 | bf16 -    | bf16 -    | bf16 -    | f32 -  | f32 -
lora fp16=false             | f32 -    | bf16 bf16 | bf16 bf16 | bf16 bf16 | f32 -  | f32 -
lora fp16=false bf16=false  | f32 -    | bf16 -    | bf16 -    | bf16 -    | f32 -  | f32 -
lora float16                | f16 fp16 | f16 fp16  | f16 fp16  | f16 fp16  | no     | no
lora bfloat16               | no       | bf16 bf16 | bf16 bf16 | bf16 bf16 | bf16 - | bf16 -
lora float32                | f32 fp16 | f32 bf16  | f32 bf16  | f32 bf16  | f32 -  | f32 -
lora 16bit                  | f16 fp16 | bf16 bf16 | bf16 bf16 | bf16 bf16 | bf16 - | bf16 -
none fp16=true              | f32 fp16 | f32 fp16  | f32 fp16  | f32 fp16  | no     | no
none bf16=true              | no       | f32 bf16  | f32 bf16  | f32 bf16  | no     | f32 bf16
none float16                | no       | no        | no        | no        | no     | no
none bfloat16               | no       | bf16 bf16 | bf16 bf16 | bf16 bf16 | bf16 - | bf16 -
none 16bit                  | no       | bf16 bf16 | bf16 bf16 | bf16 bf16 | bf16 - | bf16 -
lora float16 bf16=true      | no       | no        | no        | no        | no     | no
lora bfloat16 fp16=true     | no       | no        | no        | no        | no     | no
lora float16 fp16=false     | no       | no        | no        | no        | no     | no
lora float32 fp16=true      | f32 fp16 | f32 fp16  | f32 fp16  | f32 fp16  | no     | no
lora use_cpu=true           | f32 -    | f32 -     | f32 -     | f32 -     | f32 -  | f32 -
lora use_cpu=true bf16=true | f32 bf16 | f32 bf16  | f32 bf16  | f32 bf16  | f32 bf16 | f32 bf16
lora gemma3_text            | f32 -    | bf16 bf16 | bf16 bf16 | bf16 bf16 | f32 -  | f32 -
lora gemma3_text fp16=true  | no       | no        | no        | no        | no     | no
lora tf32=true              | no       | bf16 bf16 | bf16 bf16 | no        | no     | no
lora flash_attention_2      | no       | bf16 bf16 | bf16 bf16 | bf16 bf16 | no     | no
lora flash_attention_3      | no       | no        | bf16 bf16 | bf16 bf16 | no     | no
lora flex_attention         | f16 fp16 | bf16 bf16 | bf16 bf16 | bf16 bf16 | no     | no
"""
"""What a job says, and on each machine the type of the weights and the trainer's argument; ``no`` is refused."""

SHORT = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}


def cells() -> list[tuple[str, str, str]]:
    found = []
    for line in MATRIX.strip().splitlines():
        says, *values = (part.strip() for part in line.split("|"))
        found += [(says, machine, value) for machine, value in zip(MACHINES, values, strict=True)]
    return found


def planned(catalogue: Catalogue, says: str, machine: str) -> Plan:
    words = says.split()
    model, train = ['id = "m"'], []
    for word in words[1:]:
        if word in SHORT:
            model.append(f'dtype = "{word}"')
        elif word.endswith("bit"):
            model.append(f"load_in_{word} = true")
        elif word.endswith(("attention", "_2", "_3")):
            model.append(f'attn_implementation = "{word}"')
        elif "=" in word:
            train.append(word)
    text = "\n".join(
        ("[model]", *model, "[data]", 'path = "d.jsonl"', f'[adapter]\ntype = "{words[0]}"', "[train]", *train)
    )
    there = PRESETS[machine]
    there = replace(there, versions={**there.versions, "flash-attn": "2.8.3", "flash-attn-3": "3.0.0"})
    facts = replace(FACTS, model_type="gemma3_text") if "gemma3_text" in words else FACTS
    return planner(catalogue)(text, there, facts)


@pytest.mark.parametrize(("says", "machine", "expected"), cells())
def test_the_precision_of_a_job_is_one_decision(catalogue: Catalogue, says: str, machine: str, expected: str) -> None:
    if expected == "no":
        with pytest.raises(ForgeError, match=r"16|tf32|attn_implementation|load_in_4bit"):
            planned(catalogue, says, machine)
        return
    plan = planned(catalogue, says, machine)
    job = settle(load_job(plan.job), plan.decisions)
    options = job.train.options
    half = "bf16" if options["bf16"] else "fp16" if options["fp16"] else "-"
    assert f"{SHORT[job.model.dtype]} {half}" == expected
    assert not (options["bf16"] and options["fp16"])
    assert all(reasons(plan).values())


@pytest.mark.parametrize(
    ("says", "machine", "reason"),
    [
        ("lora fp16=true", "linux-cpu", "fp16: float16 training needs a GPU; leave it out"),
        ("lora fp16=true", "macos", "fp16: mixed precision is not reliable on Apple's GPUs; leave it out"),
        ("lora bf16=true", "linux-t4", "bf16: this GPU has no bfloat16; write fp16 = true, or leave both out"),
        ("lora bfloat16", "linux-t4", 'dtype = "bfloat16": this GPU has none; write "float16", or leave it out'),
        ("none 16bit", "linux-t4", "load_in_16bit: all weights are trained, and this GPU's 16 bit, float16, is too"),
        (
            "none float16",
            "linux-h100",
            "model.dtype: all weights are trained, and the scaling of fp16 works on float32",
        ),
        ("lora float16 bf16=true", "linux-h100", 'train.bf16: it contradicts [model] dtype = "float16"; write fp16'),
        ("lora bfloat16 fp16=true", "linux-h100", 'train.fp16: it contradicts [model] dtype = "bfloat16"; write bf16'),
        ("lora float16 fp16=false", "linux-h100", "train.fp16: without it small gradients of float16 weights are lost"),
        ("lora gemma3_text fp16=true", "linux-h100", "fp16: the activations of gemma3_text do not fit into float16"),
        ("lora tf32=true", "linux-t4", "tf32: it is for NVIDIA GPUs of compute capability 8.0 or more"),
        ("lora flex_attention", "linux-cpu", "torch has no backward pass of it here"),
        ("lora flash_attention_3", "linux-a100", "it is for GPUs of compute capability 9.0 or more"),
        (
            "lora flash_attention_2 float32 bf16=false",
            "linux-h100",
            "it computes in 16 bit only, and bf16 and fp16 are off",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_planned_with_what_to_write(
    catalogue: Catalogue, says: str, machine: str, reason: str
) -> None:
    with pytest.raises(ForgeError, match=re.escape(reason)):
        planned(catalogue, says, machine)


@pytest.mark.parametrize(
    ("says", "machine", "key", "reason"),
    [
        ("lora float16", "linux-h100", "train.fp16", "the weights are to be float16"),
        ("lora fp16=true", "linux-h100", "train.bf16", "the job names the other"),
        ("lora bf16=false", "linux-h100", "train.fp16", "the job says bf16 = false"),
        ("lora fp16=false", "linux-t4", "model.dtype", "float16 weights would need fp16, which is off"),
        ("lora gemma3_text", "linux-t4", "train.fp16", "the GPU has no bfloat16, and the activations of gemma3_text"),
    ],
)
def test_the_reason_is_the_one_that_decided(
    catalogue: Catalogue, says: str, machine: str, key: str, reason: str
) -> None:
    assert reasons(planned(catalogue, says, machine))[key].startswith(reason)
