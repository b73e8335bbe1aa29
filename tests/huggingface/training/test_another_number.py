"""What of a training would be another one, where it goes on in another number of processes than it began in."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from forge.errors import RunError
from forge_huggingface.training.resume import NUMBERS, check_number

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}


def found(folder: Path, was: int, now: int, model: Any = None, rows: int = 8, noise: float | None = None) -> list[str]:
    """Return what is told of a run that began in ``was`` processes and goes on in ``now``, with batches of 2 rows."""
    (folder / NUMBERS).write_text(json.dumps({"processes": [{}] * was}))
    args = SimpleNamespace(neftune_noise_alpha=noise, per_device_train_batch_size=2)
    model = model or LlamaForCausalLM(LlamaConfig(**SMALL))
    trainer = SimpleNamespace(args=args, model=model, train_dataset=[{}] * rows)
    run: Any = SimpleNamespace(resume=folder, folder=folder, world_size=now)
    return list(check_number(trainer, run))


def test_what_is_the_same_in_any_number_goes_on_without_a_word(tmp_path: Path) -> None:
    assert found(tmp_path, 2, 1) == found(tmp_path, 1, 4) == []


@pytest.mark.parametrize(
    ("model", "by"),
    [
        (lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attention_dropout=0.1)), r"self_attn\.attention_dropout = 0\.1"),
        (lambda: GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=8)), r"drop\.p = 0\.1"),
    ],
)
def test_a_model_that_drops_at_random_goes_on_in_as_many_only(tmp_path: Path, model: Any, by: str) -> None:
    assert found(tmp_path, 2, 2, model()) == []
    with pytest.raises(RunError, match=rf"cannot go on in 1 process: it began in 2, and .*{by} draws random numbers"):
        found(tmp_path, 2, 1, model())


def test_noise_on_embeddings_is_of_each_process(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"go on in 4 processes: .*neftune_noise_alpha draws"):
        found(tmp_path, 2, 4, noise=5.0)


@pytest.mark.parametrize("rows", [7, 10])
def test_rows_that_cannot_be_shared_evenly_by_both_are_told(tmp_path: Path, rows: int) -> None:
    (said,) = found(tmp_path, 2, 1, rows=rows)
    assert f"{rows} rows are no multiple of what 2 and 1 take at once" in said
