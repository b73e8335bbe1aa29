"""The operations of a training step: counted from the shape as torch counts them, positions and norms apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from forge_huggingface.speed.flops import flops
from support.measuring import FAMILIES, facts_of, make_job, save_model

if TYPE_CHECKING:
    from pathlib import Path

ROWS, LENGTH = 3, 40
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def counted(model: Any) -> int:
    """Return what torch counts in a step whose attention computes the whole square of each row."""
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return counter.get_total_flops()


def square(found: Any) -> float:
    """Return what the formula says for attention that is not causal."""
    return float(found.of(ROWS * LENGTH, LENGTH) + ROWS * LENGTH * LENGTH * found.pair)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_trained_are_counted_as_torch_counts(family: str, tmp_path: Path) -> None:
    model = save_model(tmp_path, family)
    model.set_attn_implementation("eager")
    found = flops(make_job({"adapter": {"type": "none"}}), facts_of(tmp_path))
    assert square(found) == pytest.approx(counted(model), rel=1e-4)


@pytest.mark.parametrize("layers", [None, [1]])
def test_an_adapter_has_no_gradients_of_the_frozen_weights(layers: list[int] | None, tmp_path: Path) -> None:
    """Below the lowest adapter nothing goes backward."""
    model = save_model(tmp_path, "llama")
    model.set_attn_implementation("eager")
    lowest = model.model.layers[layers[0] if layers else 0].self_attn
    unneeded = sum(module.weight.numel() for module in (lowest.q_proj, lowest.k_proj, lowest.v_proj))
    model = get_peft_model(model, LoraConfig(r=4, target_modules=ALL, layers_to_transform=layers))
    table = {"type": "lora", "r": 4, "target_modules": ALL} | ({"layers_to_transform": layers} if layers else {})
    found = flops(make_job({"adapter": table}), facts_of(tmp_path))
    own = 2 * 4 * 3 * 64  # the adapters' gradients of that input, which torch leaves out too
    expected = square(found) - ROWS * LENGTH * (2 * unneeded + own)
    assert expected == pytest.approx(counted(model), rel=1e-4)


def test_a_reference_is_asked_once_more_unless_it_was_asked_before(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    facts, table = facts_of(tmp_path), {"adapter": {"type": "none"}}
    alone = flops(make_job(table, method="dpo", precompute_ref_log_probs=True), facts)
    both = flops(make_job(table, method="dpo"), facts)
    assert alone is not None
    assert both is not None
    assert both.token == pytest.approx(alone.token * 4 / 3)
    assert both.pair == pytest.approx(alone.pair * 4 / 3)


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    facts = facts_of(tmp_path)
    assert flops(make_job(method="grpo"), facts) is None  # it also answers
    assert facts.shape is not None
    assert flops(make_job(), replace(facts, shape=replace(facts.shape, mixture=True))) is None
    assert flops(make_job(), replace(facts, task="vision")) is None
    assert flops(make_job(), replace(facts, shape=None)) is None
