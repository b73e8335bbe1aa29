"""Where weights have room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from forge.job.job import Job
from forge.machine.machine import Machine
from forge.machine.presets import PRESETS
from forge_huggingface.rules.placement import beyond, through_main_memory
from support.measuring import llama, make_job

GIB = 2**30
FULL = {"adapter": {"type": "none"}}
EIGHT = {"processes": 8, "shard": "full"}


def node(card: int, main: int, available: int | None = None) -> Machine:
    """Return a machine of eight GPUs, their memory and its own in GiB."""
    one = replace(PRESETS["linux-cuda"].accelerators[0], memory=card * GIB)
    free = None if available is None else available * GIB
    return replace(PRESETS["linux-cuda"], accelerators=(one,) * 8, memory=main * GIB, available=free)


def job(launch: dict[str, Any] = EIGHT, method: str = "sft", **model: Any) -> Job:
    tables = {**FULL, "launch": launch, "model": {"id": "m", "dtype": "float32", **model}}
    return make_job(tables, method=method)


@pytest.mark.parametrize(
    ("machine", "asked", "beside"),
    [
        (node(24, 512), job(), True),  # 30 GiB, and a part of 4
        (node(48, 512), job(), False),
        (node(24, 512), job(dtype="bfloat16"), False),
        (node(24, 256), job(), False),  # eight times 30 GiB are 240
        (node(24, 512, available=200), job(), False),
        (node(24, 256), job({"processes": 4, "nodes": 2, "shard": "full"}), True),  # each node holds four of them
        (node(24, 512), job({"processes": 8, "shard": "none"}), False),
        (node(24, 512), job({}), False),
        (node(24, 512), job(method="dpo"), False),
        (node(24, 512), job(attn_implementation="flash_attention_2"), False),
        (PRESETS["linux-cpu"], job(), False),
    ],
)
def test_weights_are_read_into_main_memory_where_they_have_room_there_alone(
    machine: Machine, asked: Job, beside: bool
) -> None:
    assert through_main_memory(machine, asked, llama("8b")) is beside


@pytest.mark.parametrize(
    ("card", "model", "more"),
    [
        (24, {}, True),
        (48, {}, False),
        (24, {"dtype": "bfloat16"}, False),
        (24, {"load_in_4bit": True}, False),
    ],
)
def test_weights_in_32_bit_may_be_more_than_the_gpu_that_answers_has_room_for(
    card: int, model: dict[str, Any], more: bool
) -> None:
    assert beyond(node(card, 512), job(**model), llama("8b")) is more


def test_what_is_not_known_has_room() -> None:
    unknown = replace(llama("8b"), parameters=None, shape=None)
    assert not beyond(node(24, 512), job(), unknown)
    assert not through_main_memory(node(24, 512), job(), unknown)
