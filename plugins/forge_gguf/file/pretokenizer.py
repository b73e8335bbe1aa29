"""Finding out how llama.cpp must split texts, by trying.

llama.cpp has the ways of splitting built in, by name (``tokenizer.ggml.pre``), and its converter finds the name by a
hash of one string's ids. That fails for a tokenizer of one's own, and passes for one that differs on other strings
(both seen: a SmolLM2 tokenizer saved by transformers 5 has lost its digit splitter and still has the hash of "smollm").
So each name is tried here, with a file that holds the vocabulary and a model of a few numbers, on hundreds of strings.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ExportError
from forge_gguf.file.vocabulary import inner
from forge_gguf.file.writer import write_vocabulary
from forge_gguf.llama.runtime import Generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge_gguf.file.vocabulary import Vocabulary


# One name of each way of splitting that llama.cpp has (src/llama-vocab.cpp, llm_tokenizer_bpe), the common ones first.
NAMES = (
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "smollm",
    "tekken",
    "gpt-4o",
    "deepseek-v3",
    "deepseek-llm",
    "deepseek-coder",
    "falcon",
    "starcoder",
    "dbrx",
    "stablelm2",
    "qwen35",
    "chatglm-bpe",
    "viking",
    "bloom",
    "mpt",
    "chameleon",
    "kimi-k2",
    "superbpe",
    "bailingmoe",
    "seed-coder",
    "grok-2",
    "afmoe",
    "exaone-moe",
    "youtu",
    "default",
)


def likely(tokenizer: Any) -> list[str]:
    """Return the names in the order in which they are worth trying, by the patterns that the tokenizer splits with."""
    text = json.dumps(inner(tokenizer).get("pre_tokenizer"), ensure_ascii=False)
    first = []
    if "\\\\p{N}{1,3}" in text:
        first = ["deepseek-v3", "gpt-4o", "llama-bpe"] if "\\\\p{M}" in text else ["llama-bpe", "dbrx"]
        if "\\\\p{Lu}" in text:
            first = ["gpt-4o", "tekken", *first]
    elif "\\\\p{Lu}" in text:
        first = ["tekken"]
    elif "\\\\p{N}" in text:
        first = ["qwen2", "qwen35"]
    elif '"Digits"' in text:
        first = ["smollm", "starcoder"]
    return list(dict.fromkeys([*first, *NAMES]))


def find(tokenizer: Any, vocabulary: Vocabulary, texts: Sequence[str]) -> str:
    """Return the name with which llama.cpp gives the same ids for all texts.

    Raises:
        ExportError: No name does; the message tells the nearest and the first text that differs.
    """
    if vocabulary.model != "gpt2":
        return "default"  # SentencePiece's BPE does not split
    best: tuple[int, str, str] | None = None
    with tempfile.TemporaryDirectory(prefix="forge-gguf-") as scratch:
        path = Path(scratch, "vocabulary.gguf")
        for name in likely(tokenizer):
            write_vocabulary(path, vocabulary.with_pre(name))
            wrong = differences(path, tokenizer, texts, enough=best[0] if best else None)
            if not wrong:
                return name
            if best is None or len(wrong) < best[0]:
                best = (len(wrong), name, wrong[0])
    assert best is not None
    raise ExportError(
        "llama.cpp cannot split texts as this tokenizer does",
        f"of the ways that it knows, {best[1]!r} comes nearest, and {best[0]} of {len(texts)} texts differ, "
        f"the first of them {best[2]!r}",
        "a model with this tokenizer cannot be used in llama.cpp yet",
    )


def differences(path: Path, tokenizer: Any, texts: Sequence[str], enough: int | None = None) -> list[str]:
    """Return the texts for which a file's tokenizer gives other ids than the one that was trained with.

    Args:
        path: The GGUF file.
        tokenizer: The tokenizer.
        texts: What to try, without the tokens that begin and end a text.
        enough: Stop at so many.
    """
    wrong = []
    with Generator(path, context=32) as generator:
        for text in texts:
            if generator.tokens(text, special=False) != tokenizer(text, add_special_tokens=False)["input_ids"]:
                wrong.append(text)
            if enough is not None and len(wrong) >= enough:
                break
    return wrong
