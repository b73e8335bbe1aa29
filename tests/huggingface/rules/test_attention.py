"""Where the rows of a batch lie end to end, and what then keeps them apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import JobError
from forge.model.shape import Shape
from support.planning import BASE, CUDA, FACTS, planner

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue

SHAPE = Shape(
    layers=2,
    hidden=64,
    intermediate=128,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocab=400,
    tied=False,
    gated=True,
    norms=2,
    head_norms=False,
    linears=(),
    embedding=51200,
    rest=0,
    exact=True,
)
LLAMA = replace(FACTS, model_type="llama", shape=SHAPE)
NEW = replace(CUDA, versions={**CUDA.versions, "torch": "2.11.0"})
OLD = replace(CUDA, versions={**CUDA.versions, "torch": "2.10.0"})


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


HF = '[use]\nbackend = "huggingface"\n'


def decided(found: Any) -> tuple[Any, Any]:
    return found.decided("model.attn_implementation"), found.decided("data.padding_free")


@pytest.mark.parametrize(
    ("text", "machine", "facts", "expected"),
    [
        ("", NEW, LLAMA, ("varlen", True)),
        ("", OLD, LLAMA, ("sdpa", False)),
        ("", "linux-cpu", LLAMA, ("sdpa", False)),
        ("", NEW, replace(LLAMA, model_type="gemma2"), ("sdpa", False)),
        ("", replace(OLD, versions={**OLD.versions, "flash-attn": "2.8"}), LLAMA, ("flash_attention_2", True)),
        ("[train]\nmethod = 'dpo'\n", NEW, LLAMA, ("sdpa", None)),
        ("[train]\nneftune_noise_alpha = 5\n", NEW, LLAMA, ("sdpa", False)),
        ("[train]\nbf16 = false\n[adapter]\ntype = 'none'\n", NEW, LLAMA, ("sdpa", False)),
    ],
)
def test_rows_lie_end_to_end_where_attention_goes_by_boundaries(
    plan: Any, text: str, machine: Any, facts: Any, expected: tuple[Any, Any]
) -> None:
    assert decided(plan(BASE + HF + text, machine=machine, facts=facts)) == expected


@pytest.mark.parametrize(
    ("key", "machine", "expected"),
    [
        ("padding_free = false", NEW, ("sdpa", None)),
        ("padding_free = true", "linux-cpu", ("varlen", None)),
        ("packing = true", "linux-cpu", ("varlen", None)),
        ("packing = true", NEW, ("varlen", None)),
    ],
)
def test_a_job_may_say_how_rows_lie(plan: Any, key: str, machine: Any, expected: tuple[Any, Any]) -> None:
    assert decided(plan(f"{BASE}{key}\n{HF}", machine=machine, facts=LLAMA)) == expected


def test_noise_by_the_length_of_rows_is_kept_off_rows_that_lie_end_to_end(plan: Any) -> None:
    with pytest.raises(JobError, match="NEFTune's noise goes by the length of a row") as caught:
        plan(f"{BASE}padding_free = true\n{HF}[train]\nneftune_noise_alpha = 5\n", machine="linux-cpu", facts=LLAMA)
    assert "remove it, or neftune_noise_alpha" in str(caught.value)
    packed = f"{BASE}packing = true\n{HF}[train]\nneftune_noise_alpha = 5\n"
    assert decided(plan(packed, machine=NEW, facts=LLAMA)) == ("varlen", None)


def test_moving_activations_to_main_memory_needs_a_gpu(plan: Any) -> None:
    text = f"{BASE}{HF}[train]\ngradient_checkpointing = true\ngradient_checkpointing_kwargs = {{ offload = true }}\n"
    with pytest.raises(JobError, match=r"gradient_checkpointing_kwargs.offload: it needs an accelerator"):
        plan(text, machine="linux-cpu", facts=LLAMA)
    plan(text, machine=NEW, facts=LLAMA)
