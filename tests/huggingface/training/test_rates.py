"""Learning rates by group: LoRA+ as peft does it, and rates by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge.api import ModelError
from forge_huggingface.training.rates import Rates
from support.projects import cut_after
from support.resuming import resumed

if TYPE_CHECKING:
    from support.projects import Project


def adapted(**keys: Any) -> Any:
    """Return a small random model with LoRA, whose B is not zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(3)
    shape = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return get_peft_model(LlamaForCausalLM(shape), LoraConfig(r=2, init_lora_weights=False, **keys))


def test_lora_plus_is_pefts_digit_for_digit() -> None:
    from peft.optimizers import create_loraplus_optimizer

    ids = torch.arange(24).reshape(2, 12)
    ended = []
    for peft_s in (False, True):
        model = adapted(target_modules=["q_proj", "up_proj"])
        if peft_s:
            optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8.0)
        else:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
            counts = Rates(1e-3, 8.0).part(optimizer, model)
            assert sorted(counts) == [1e-3, 8e-3]
        for _ in range(5):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ended.append([parameter.detach() for parameter in model.parameters() if parameter.requires_grad])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*ended, strict=True))


def test_names_come_before_the_ratio_and_groups_keep_their_decay() -> None:
    model = adapted(target_modules=["q_proj"], modules_to_save=["lm_head"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW([{"params": trained[:2], "weight_decay": 0.5}, {"params": trained[2:]}], lr=1e-3)
    counts = Rates(1e-3, 4.0, {"lm_head": 1e-5}).part(optimizer, model)
    assert counts == {1e-3: 32, 4e-3: 32, 1e-5: 32 * 16}
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (1e-3, 0.5),
        (4e-3, 0.5),
        (1e-5, 0.01),
    ]


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    model = adapted(target_modules=["q_proj"])
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    with pytest.raises(ModelError, match='"embed_tokens" fits no parameter that is trained'):
        Rates(1e-3, None, {"embed_tokens": 1e-5}).part(optimizer, model)


def test_a_run_tells_its_rates_and_goes_on_with_them(project: Project) -> None:
    rates = {"loraplus_lr_ratio": 16.0, "learning_rates": {r"layers\.0\..*lora_A": 0.0}}
    project.write(train={"max_steps": 4, "save_steps": 2, "learning_rate": 1e-3, **rates})
    done = project.perform()
    assert done.code == 0, done.printed
    said = [event["message"] for event in done.of_kind("note")]
    assert any("learning rates: 0 for" in each and "0.001 for" in each and "0.016 for" in each for each in said), said
    whole = (done.folder.path / "adapter" / "adapter_model.safetensors").read_bytes()
    cut_after(done.folder, 2)
    assert resumed(done.folder).code == 0
    assert (done.folder.path / "adapter" / "adapter_model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"adapter": {"type": "none", "r": None, "lora_alpha": None}, "train": {"loraplus_lr_ratio": 16.0}},
            "there is no LoRA",
        ),
        ({"train": {"learning_rates": {"(": 1e-4}}}, "is no regular expression"),
        ({"train": {"learning_rates": {"a": -1.0}}}, "must be at least 0"),
        (
            {"train": {"loraplus_lr_ratio": 16.0, "optim": "galore_adamw", "optim_target_modules": "all-linear"}},
            'optim = "galore_adamw" parts the parameters itself',
        ),
    ],
)
def test_rates_that_cannot_be_are_refused_when_planned(project: Project, changes: dict[str, Any], said: str) -> None:
    project.write(**changes)
    assert said in project.forge("plan", "job.toml", code=None)
