"""Mixtures of experts train and are saved, whatever their families call their experts."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from forge_huggingface.rules.training import ROUTED
from support.tiny import make_tokenizer

if TYPE_CHECKING:
    from support.projects import Project

SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "num_experts_per_tok": 2,
    "output_router_logits": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "granitemoe": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_mixture_trains_with_the_loss_of_its_router(project: Project, family: str, adapter: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    folder = project.folder / family
    make_tokenizer(folder)
    set_seed(1)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    keys = {} if adapter == "lora" else {"r": None, "lora_alpha": None}
    project.write(model={"id": f"./{family}"}, adapter={"type": adapter, **keys}, train={"max_steps": 2})
    if family == "granitemoe" and Version(version("transformers")) < Version(ROUTED):
        assert "makes no loss of the router of granitemoe; write 0" in project.forge("plan", "job.toml", code=2)
        return
    done = project.perform()
    assert done.code == 0, done.printed
    assert all("aux_loss" in step for step in done.of_kind("step")), done.of_kind("step")
    if adapter == "none":
        saved = json.loads((done.folder.path / "model" / "config.json").read_text(encoding="utf-8"))
        assert saved.keys() - {"use_cache"} <= said.keys()
