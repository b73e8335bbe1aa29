"""Random models in real shapes, and rows for them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = Path(__file__).resolve().parents[1] / "gpu.py"
"""The script that is called again for what needs a process of its own."""

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "small": {"hidden": 512, "inner": 1536, "layers": 6, "heads": 8, "kv": 4, "vocab": 8192, "tied": False},
    "1b": {"hidden": 2048, "inner": 8192, "layers": 16, "heads": 32, "kv": 8, "vocab": 128256, "tied": True},
    "8b": {"hidden": 4096, "inner": 14336, "layers": 32, "heads": 32, "kv": 8, "vocab": 128256, "tied": False},
}
LENGTH, RATE, SEED, WINDOW = 2048, 2e-4, 42, 5
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 64}),
    "mistral": ("Mistral", {"head_dim": 64, "sliding_window": None}),
    "gemma2": ("Gemma2", {"head_dim": 64}),
    "phi3": ("Phi3", {"original_max_position_embeddings": 4096}),
    "granite": ("Granite", {}),
    "olmo2": ("Olmo2", {}),
    "gemma3_text": ("Gemma3", {"head_dim": 64}),
    "gemma": ("Gemma", {"head_dim": 64}),
    "smollm3": ("SmolLM3", {}),
}


def words(rng: random.Random, count: int) -> list[str]:
    """Return random words of a small vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) for _ in range(3000)]
    return [rng.choice(known) for _ in range(count)]


def make_tokenizer(folder: Path) -> Any:
    """Train a byte-level BPE tokenizer and write it into ``folder``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng, special = random.Random(0), ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    inner.train_from_iterator([" ".join(words(rng, 200)) for _ in range(150)] + ["user assistant system"] * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=8192,
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(folder: Path, shape: str, family: str | None = None) -> None:
    """Write random weights, bf16, and a tokenizer."""
    import torch
    import transformers

    tokenizer, size = make_tokenizer(folder), SHAPES[shape]
    name, extra = FAMILIES[family] if family else ("Llama", {"head_dim": size["hidden"] // size["heads"]})
    suffix = "TextConfig" if family == "gemma3_text" else "Config"
    config = getattr(transformers, name + suffix)(
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        intermediate_size=size["inner"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv"],
        max_position_embeddings=8192,
        tie_word_embeddings=size["tied"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **extra,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    torch.set_default_dtype(torch.float32)
    model.to(torch.bfloat16).save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e9:.3f} G parameters", flush=True)


def lengths_of(rng: random.Random, tokenizer: Any) -> dict[str, int]:
    """Return words, each with a space before it, and their numbers of tokens."""
    return {f" {word}": len(tokenizer.tokenize(f" {word}")) for word in words(rng, 3000)}


def text_of(rng: random.Random, known: Mapping[str, int], tokens: int) -> str:
    """Return a text of so many tokens: words as long as there is room, then letters, which are one token each."""
    said, left, every = [], tokens, list(known)
    while left >= max(known.values()):
        said.append(rng.choice(every))
        left -= known[said[-1]]
    return "".join(said) + " a" * left


def make_rows(folder: Path) -> None:
    """Write ``full.jsonl``, whose rows have 2048 tokens, and ``chat.jsonl``, whose rows are of all lengths."""
    rng = random.Random(1)
    known = lengths_of(rng, make_tokenizer(folder / "tokenizer"))
    with (folder / "full.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(256):
            file.write(json.dumps({"text": text_of(rng, known, LENGTH - 1)}) + "\n")  # its end is one more
    with (folder / "chat.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(128):
            said = [" ".join(words(rng, rng.randint(5, 120))) for _ in range(4)]
            roles = ("user", "assistant", "user", "assistant")
            messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
            file.write(json.dumps({"messages": messages}) + "\n")


def build(models: Path, name: str, family: str | None = None) -> Path:
    """Make a model in a process of its own, so that this one holds no GPU memory."""
    folder = models / (family or name)
    if not (folder / "config.json").exists():
        command = [sys.executable, str(SCRIPT), "model", str(folder), name, *([family] if family else [])]
        subprocess.run(command, check=True)
    return folder
