"""A job of no meaning, to find out how fast a machine is: a random model, its tokenizer, and rows of one length.

Everything is written as bytes, without torch: what measures it is a run of forge like any other.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import Machine

_BLOCK = 2**19


def write(folder: Path, machine: Machine) -> None:
    """Write ``job.toml``, ``model/`` and ``rows.jsonl``: half a billion parameters for a GPU, seven million else."""
    gpu = bool(machine.usable_kinds)
    hidden, layers, vocab, length = (2048, 8, 32000, 1024) if gpu else (256, 6, 4096, 128)
    rows, steps = 4, 40 if gpu else 12  # a GPU still works on the first step when the processor has gone on to the next
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 128,
        "head_dim": 64,
        "vocab_size": vocab,
        "max_position_embeddings": 2 * length,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dtype": "bfloat16" if gpu else "float32",
    }
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_tokenizer(model, vocab)
    _write_weights(model / "model.safetensors", config)
    words = " ".join(f"w{(7 * index) % 1000}" for index in range(length - 1))
    line = json.dumps({"text": words}) + "\n"
    (folder / "rows.jsonl").write_text(line * rows * steps, encoding="utf-8")
    job = f"""[model]
id = "model"
max_seq_length = {length}

[data]
path = "rows.jsonl"

[train]
max_steps = {steps}
per_device_train_batch_size = {rows}
gradient_accumulation_steps = 1
logging_steps = {steps}
save_strategy = "no"
"""
    (folder / "job.toml").write_text(job, encoding="utf-8")


def _write_tokenizer(model: Path, vocab: int) -> None:
    """Write a tokenizer whose words are w0, w1, and so on."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = {word: number for number, word in enumerate([*special, *(f"w{each}" for each in range(vocab - 4))])}
    added = [
        {"id": number, "content": word, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for number, word in enumerate(special)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (model / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def _write_weights(path: Path, config: dict[str, Any]) -> None:
    """Write weights between -0.02 and 0.02, the same few over and over: values do not change how long they take."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    key = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}"
        for name, out, into in (("q", hidden, hidden), ("k", key, hidden), ("v", key, hidden), ("o", hidden, hidden)):
            shapes[f"{start}.self_attn.{name}_proj.weight"] = (out, into)
        for name, out, into in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
            shapes[f"{start}.mlp.{name}_proj.weight"] = (out, into)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{start}.{name}.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    kind, size = ("BF16", 2) if config["dtype"] == "bfloat16" else ("F32", 4)
    header, place = {}, 0
    counts = {name: shape[0] * (shape[1] if len(shape) > 1 else 1) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        end = place + counts[name] * size
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    block = _values([0.04 * ((index * 7919) % 10007) / 10007 - 0.02 for index in range(_BLOCK)], size)
    ones = _values([1.0], size)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            left = counts[name] * size
            if len(shape) == 1:
                file.write(ones * shape[0])
                continue
            while left > 0:
                left -= file.write(block[:left])


def _values(values: list[float], size: int) -> bytes:
    """Return numbers as bytes in float32, or in bfloat16, which is its upper half."""
    packed = struct.pack(f"<{len(values)}f", *values)
    if size == 4:
        return packed
    halves = bytearray(2 * len(values))
    halves[0::2], halves[1::2] = packed[2::4], packed[3::4]
    return bytes(halves)
