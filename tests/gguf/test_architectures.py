"""Every architecture that forge writes passes all four gates, with a random model of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge_gguf import rules
from forge_gguf.file import architectures, pretokenizer
from forge_gguf.file.quants import KINDS, Shape
from forge_gguf.file.vocabulary import vocabulary
from forge_gguf.file.weights import Weights
from forge_gguf.file.writer import general, layout, write
from forge_gguf.llama.runtime import Generator
from forge_gguf.trial import verify
from forge_gguf.trial.texts import corpus
from support.tiny_gguf import MODELS, make

if TYPE_CHECKING:
    from pathlib import Path


SLOW = frozenset({"granitemoe", "mixtral", "olmoe"})
"""Mixtures beside Qwen3-MoE, whose tensors are found in the same way."""


def written(folder: Path, path: Path, kind: str = "f16") -> tuple[list[Any], Any]:
    """Write a folder's model and return what the gates find, and the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from forge_gguf.trial.reference import Reference

    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder).to_dict()
    weights = Weights(folder)
    tensors = architectures.tensors(config, weights)
    texts = corpus(tokenizer)[::12]
    words = vocabulary(tokenizer, config["vocab_size"])
    words = words.with_pre(pretokenizer.find(tokenizer, words, texts))
    shape = Shape(config["num_hidden_layers"], not any(tensor.name == "output.weight" for tensor in tensors))
    keys = general(KINDS[kind], architectures.BUILTIN[config["architectures"][0]].name, "test")
    keys |= architectures.keys(config) | words.keys()
    write(path, keys, tensors, weights, KINDS[kind], shape)
    rows = [torch.randint(6, 300, (24,), generator=torch.Generator().manual_seed(seed)).tolist() for seed in (1, 2)]
    with Reference(folder, None) as trained:
        chances = [trained.chances(ids) for ids in rows]
    gates = [verify.check_keys(path, keys, layout(tensors, KINDS[kind], shape), weights)]
    with Generator(path, context=64, exact=True) as generator:
        gates.append(verify.check_tokens(generator, tokenizer, texts, words.stops))
        gates.append(verify.check_template(generator, tokenizer, {}))
        gates.append(verify.check_logits(generator, rows, chances, KINDS[kind]))
    return gates, tokenizer


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS])
def test_a_random_model_passes_every_gate(name: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", name)
    gates, _ = written(folder, tmp_path / "model.gguf")
    assert [(gate.name, gate.state, gate.message) for gate in gates if gate.state != "pass"] == []
    assert gates[-1].values["kl_mean"] < 3e-4


def test_what_planning_calls_built_in_is_built_in() -> None:
    assert set(rules.ARCHITECTURES) == set(architectures.BUILTIN)


def test_each_architecture_has_a_random_model() -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    classes = {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] for kind, *_ in MODELS.values()}
    assert classes == set(architectures.BUILTIN), AutoConfig


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "every 6th layer"),
        ("gemma2", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, "sliding windows"),
    ],
)
def test_a_config_that_llama_cpp_would_misread_is_refused(
    name: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(make(tmp_path / "model", name, **changes)).to_dict()
    assert words in (architectures.problem(config) or "")
