"""What would fail after training fails before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge_gguf.file import architectures
from forge_gguf.trial import preflight
from support.tiny_gguf import MODELS, make

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project


@pytest.mark.slow
def test_a_tokenizer_that_llama_cpp_cannot_follow_stops_the_run_before_the_model_is_loaded(project: Project) -> None:
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    path = project.folder / "model" / "tokenizer.json"
    inner = Tokenizer.from_file(str(path))
    odd = pre_tokenizers.Split(Regex("[aeiou]"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [odd, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.save(str(path))
    project.write(export=[{"format": "gguf", "types": ["q8_0"]}])
    done = project.perform()
    assert done.code == 2
    assert "llama.cpp cannot split texts as this tokenizer does" in done.error["why"]
    assert done.of_kind("loaded") == []


def test_a_base_without_its_output_layer_is_found_before_training(project: Project) -> None:
    from safetensors.torch import load_file, save_file

    path = project.folder / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, {"format": "pt"})
    project.write(export=[{"format": "gguf", "types": ["q8_0"]}])
    done = project.perform()
    assert done.code == 2
    assert "there is no lm_head.weight" in done.error["why"]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "phi3-128k", "smollm3"])
def test_the_small_model_is_of_the_same_kind(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(make(tmp_path / "model", name)).to_dict()
    small: dict[str, Any] = preflight.small(config)
    assert small["num_hidden_layers"] == 2
    assert architectures.head_dim(small) == architectures.head_dim(config)
    assert architectures.rope(small) == architectures.rope(config)
    assert small["vocab_size"] == config["vocab_size"]
    assert name in MODELS


@pytest.mark.parametrize(
    ("method", "row"),
    [
        ("dpo", {"prompt": "Name a colour.", "chosen": "red", "rejected": "stone"}),
        ("kto", {"prompt": "Name a colour.", "completion": "red", "label": True}),
        ("grpo", {"prompt": [{"role": "user", "content": "Name a colour."}], "answer": "red"}),
    ],
)
def test_it_reads_the_rows_of_other_methods(method: str, row: dict[str, Any], project: Project) -> None:
    reward = [{"use": "regex", "args": {"pattern": "red"}}]
    online = {"reward": reward, "num_generations": 2, "max_completion_length": 4} if method == "grpo" else {}
    other = {name: text.replace("red", "blue") if name == "completion" else text for name, text in row.items()}
    rows = json.dumps(row) + "\n" + json.dumps(other) + "\n"  # kto compares answers with others
    (project.folder / "rows.jsonl").write_text(rows * 4, encoding="utf-8")
    project.write(train={"method": method, **online}, export=[{"format": "gguf", "types": ["q8_0"]}])
    done = project.perform()
    assert done.code == 0, done.printed
    assert any("went the whole way to GGUF" in event["message"] for event in done.of_kind("note"))
