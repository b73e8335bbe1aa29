"""A random Llama of 11 thousand parameters with a tokenizer of bytes, written without torch, and rows to train on."""

from __future__ import annotations

import json
import random
import struct
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
MERGED = ("t", "h")
"""The one pair of letters that is a token: llama.cpp reads no tokenizer that merges nothing."""

WIDTH, INNER, VOCABULARY = 16, 32, 256 + len(SPECIAL) + 1

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(folder: Path) -> Path:
    """Write the model with its tokenizer into a folder, and return it. transformers can load both."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    _json(folder / "config.json", config)
    layer = "model.layers.0"
    shapes = {
        "lm_head.weight": (VOCABULARY, WIDTH),
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
        f"{layer}.input_layernorm.weight": (WIDTH,),
        f"{layer}.post_attention_layernorm.weight": (WIDTH,),
        **{f"{layer}.self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"},
        **{f"{layer}.mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")},
        f"{layer}.mlp.down_proj.weight": (WIDTH, INNER),
    }
    write_tensors(folder / "model.safetensors", shapes)
    _tokenizer(folder)
    return folder


def write_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write random tensors of type float32 as safetensors: the same for the same shapes."""
    draw, data, header = random.Random(0), array("f"), {}  # noqa: S311 - weights, no secrets
    for name, shape in shapes.items():
        start, count = 4 * len(data), shape[0] * (shape[1] if len(shape) > 1 else 1)
        data.extend(1.0 if len(shape) == 1 else draw.gauss(0, 0.1) for _ in range(count))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, 4 * len(data)]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data.tobytes())


def make_rows(path: Path, count: int = 8) -> Path:
    """Write conversations as JSON Lines."""
    words = ("red", "green", "blue", "yellow")
    rows = (
        {
            "messages": [
                {"role": "user", "content": f"Name colour {index}."},
                {"role": "assistant", "content": words[index % len(words)]},
            ]
        }
        for index in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _tokenizer(folder: Path) -> None:
    added = [
        {
            "id": index,
            "content": token,
            "special": True,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for index, token in enumerate(SPECIAL)
    ]
    letters = [*SPECIAL, *_letters(), "".join(MERGED)]
    level: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    whole = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {letter: index for index, letter in enumerate(letters)}, "merges": [MERGED]},
    }
    _json(folder / "tokenizer.json", whole)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "chat_template": CHATML}
    _json(folder / "tokenizer_config.json", {**kind, **names, "clean_up_tokenization_spaces": False})


def _letters() -> Iterable[str]:
    """Return the letter that byte-level tokenizers write for each byte: itself where it can be seen."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
