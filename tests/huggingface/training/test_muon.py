"""Muon as one optimizer with AdamW: which takes what, and that both step as torch's own do."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from forge.errors import JobError, PlanError
from forge_huggingface.training.muon import is_of_layers, make
from support.projects import Project

ARGS = SimpleNamespace(weight_decay=0.1, learning_rate=1e-2, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8)
IDS = torch.arange(24).reshape(2, 12)


def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def decayed(made: Any) -> frozenset[str]:
    return frozenset(name for name, each in made.named_parameters() if each.ndim > 1)


def step(made: Any, *optimizers: Any) -> None:
    made(input_ids=IDS, labels=IDS).loss.backward()
    for each in optimizers:
        each.step()
    made.zero_grad()


def test_both_step_as_torchs_own_and_a_checkpoint_brings_them_back() -> None:
    mine, theirs = model(), model()
    one = make(mine, ARGS, decayed(mine))
    matrices = [each for name, each in theirs.named_parameters() if is_of_layers(name, each)]
    tables = [theirs.model.embed_tokens.weight, theirs.lm_head.weight]
    norms = [each for each in theirs.parameters() if each.ndim == 1]
    assert len(matrices) == 14
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": tables, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    for _ in range(2):
        step(mine, one)
        step(theirs, muon, adamw)
    again = model()
    again.load_state_dict(mine.state_dict())
    other = make(again, ARGS, decayed(again))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for each in (one, other):
        for group in each.param_groups:
            group["lr"] = 1e-3  # as a schedule does
    for group in (*muon.param_groups, *adamw.param_groups):
        group["lr"] = 1e-3
    step(mine, one)
    step(theirs, muon, adamw)
    step(again, other)
    for found in (theirs, again):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), found.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "shape", "taken"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (4, 4), True),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight", (2, 4), True),
        ("model.layers.0.input_layernorm.weight", (4,), False),
        ("model.embed_tokens.weight", (8, 4), False),
        ("base_model.model.lm_head.modules_to_save.default.weight", (8, 4), False),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default", (2, 4), False),
    ],
)
def test_muon_takes_the_matrices_inside_the_layers(name: str, shape: tuple[int, ...], taken: bool) -> None:
    assert is_of_layers(name, torch.empty(shape)) is taken


def test_a_torch_without_muon_is_told_with_all_else_that_is_missing(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from dataclasses import replace

    import support.projects as projects

    here = projects.probe()
    versions = {**here.versions, "torch": "2.8.0"}
    versions.pop("wandb", None)
    monkeypatch.setattr(projects, "probe", lambda: replace(here, versions=versions))
    project.write(train={"optim": "muon", "report_to": "wandb"})
    with pytest.raises((JobError, PlanError)) as caught:
        project.prepare()
    assert "torch is 2.8.0; needs >=2.9" in str(caught.value)
    assert "wandb is not installed" in str(caught.value)
