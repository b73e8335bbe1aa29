"""Random models of the families that MLX's side of forge knows."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Stage
from support.projects import merged
from support.tiny import make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Finished, Project

NEEDED = pytest.mark.skipif(
    find_spec("mlx") is None or find_spec("mlx_lm") is None,
    reason='MLX is not installed (pip install "mlx[cpu]" mlx-lm)',
)
"""Marks tests that compute with MLX, which nothing else of forge needs."""

BY_NAME = {"use": {"backend": "mlx"}}
"""What a job names MLX by."""

COMMON: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
WINDOW = {"sliding_window": 16, "layer_types": LAYERS}
DIFFERENT: dict[str, dict[str, Any]] = {
    "cohere2": WINDOW,
    "ernie4_5": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, **WINDOW},
    "glm4": {"head_dim": 8},
    "granite": {"logits_scaling": 2.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "helium": {"head_dim": 8},
    "mistral": {"sliding_window": None},
    "olmo3": WINDOW,
    "phi": {"partial_rotary_factor": 0.5},
    "qwen3": {"head_dim": 8},
    "seed_oss": {"head_dim": 8},
    "smollm3": {"no_rope_layer_interval": 2},
}
"""What a family's settings have beside, or otherwise."""


def make(folder: Path, family: str, **changes: Any) -> Path:
    """Write a random model of a family, the weights of its norms too, with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**COMMON, **DIFFERENT.get(family, {}), **changes})
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def done(project: Project, **changes: Any) -> Finished:
    """Run a project's job to its end."""
    project.write(**changes)
    finished = project.perform()
    assert finished.code == 0, finished.printed[-3000:]
    return finished


def both(project: Project, **changes: Any) -> tuple[Finished, Finished]:
    """Run a job with MLX and with transformers."""
    mine, theirs = done(project, **merged(changes, BY_NAME)), done(project, **changes)
    names = [each.folder.plan().step(Stage.TRAIN).plugin for each in (mine, theirs)]
    assert names == ["mlx", "huggingface"]
    return mine, theirs


def pairs(project: Project) -> None:
    """Write rows of two answers."""
    words = ("red", "green", "blue", "yellow", "black", "white")
    rows = [
        {"prompt": f"Name colour {index}.", "chosen": f"It is {words[index % 6]}.", "rejected": "I " * (1 + index % 3)}
        for index in range(16)
    ]
    (project.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
