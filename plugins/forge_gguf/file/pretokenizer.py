"""Finding out how llama.cpp must split texts, by trying.

llama.cpp has the ways of splitting built in, by name (``tokenizer.ggml.pre``), and its converter finds the name by a
hash of one string's ids. That fails for a tokenizer of one's own, and passes for one that differs on other strings
(both seen: a SmolLM2 tokenizer saved by transformers 5 has lost its digit splitter and still has the hash of "smollm").
So each name is tried here, with a file that holds the vocabulary and a model of a few numbers, on hundreds of strings.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Differences:
    """What llama.cpp reads in another way than the tokenizer that was trained with.

    Attributes:
        own: Texts of the run: its rows, and a question as its template renders it.
        others: Strings on which tokenizers differ, whether the run has such or not.
        tried: How many of the run's own were tried; without any, all that is known is what others say.
    """

    own: tuple[str, ...]
    others: tuple[str, ...]
    tried: int

    @property
    def matter(self) -> tuple[str, ...]:
        """Return the texts for which a file is wrong for this run."""
        return self.own if self.tried else self.others

    @property
    def rank(self) -> tuple[int, int]:
        """Return how bad it is; less is better."""
        return len(self.own), len(self.others)


def fitted(tokenizer: Any, vocabulary: Vocabulary, texts: Sequence[str], own: Sequence[str]) -> Vocabulary:
    """Return a vocabulary with the settings under which llama.cpp comes nearest to a tokenizer.

    Args:
        tokenizer: The tokenizer.
        vocabulary: Its content.
        texts: Strings on which tokenizers differ.
        own: Texts of the run, which come first.

    Raises:
        ExportError: However byte-level BPE is split, texts that matter differ.
    """
    if vocabulary.model == "gpt2":
        return vocabulary.with_pre(find(tokenizer, vocabulary, texts, own))
    best: tuple[tuple[int, int], Vocabulary] | None = None
    with tempfile.TemporaryDirectory(prefix="forge-gguf-") as scratch:
        path = Path(scratch, "vocabulary.gguf")
        for variant in vocabulary.variants():
            write_vocabulary(path, variant)
            wrong = differences(path, tokenizer, texts, own, best[0][0] if best else None).rank
            if best is None or wrong < best[0]:
                best = (wrong, variant)
            if best[0] == (0, 0):
                break
    assert best is not None
    return best[1]


def find(tokenizer: Any, vocabulary: Vocabulary, texts: Sequence[str], own: Sequence[str] = ()) -> str:
    """Return the name with which llama.cpp gives the same ids for all texts, or at least for those of the run.

    Raises:
        ExportError: No name does; the message tells the nearest and the first text that differs.
    """
    if vocabulary.model != "gpt2":
        return "default"  # SentencePiece's BPE does not split
    best: tuple[Differences, str] | None = None
    with tempfile.TemporaryDirectory(prefix="forge-gguf-") as scratch:
        path = Path(scratch, "vocabulary.gguf")
        for name in likely(tokenizer):
            write_vocabulary(path, vocabulary.with_pre(name))
            wrong = differences(path, tokenizer, texts, own, len(best[0].own) if best else None)
            if best is None or wrong.rank < best[0].rank:
                best = (wrong, name)
            if best[0].rank == (0, 0):
                return name
    assert best is not None
    if not best[0].matter:
        return best[1]
    count = f"{len(best[0].matter)} of {len(own)} rows of this run" if own else f"{len(best[0].others)} texts"
    raise ExportError(
        "llama.cpp cannot split texts as this tokenizer does",
        f"of the ways that it knows, {best[1]!r} comes nearest, and {count} differ, "
        f"the first of them {short(best[0].matter[0])}",
        "a model with this tokenizer cannot be used in llama.cpp yet: export merged, for transformers and vLLM",
    )


def short(text: str) -> str:
    """Return a text for a message, cut where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def differs(generator: Generator, tokenizer: Any, text: str) -> bool:
    """Whether llama.cpp gives other ids for a text, without the tokens that it puts around it."""
    return bool(generator.tokens(text, special=False) != tokenizer(text, add_special_tokens=False)["input_ids"])


def differences(
    path: Path, tokenizer: Any, texts: Sequence[str], own: Sequence[str] = (), enough: int | None = None
) -> Differences:
    """Return the texts for which a file's tokenizer gives other ids than the one that was trained with.

    Args:
        path: The GGUF file.
        tokenizer: The tokenizer.
        texts: Strings on which tokenizers differ.
        own: Texts of the run.
        enough: If more of the run's own differ, the others are not tried.
    """
    with Generator(path, context=32) as generator:
        mine = tuple(text for text in own if differs(generator, tokenizer, text))
        if enough is not None and len(mine) > enough:
            return Differences(mine, tuple(texts), len(own))
        others = tuple(text for text in texts if differs(generator, tokenizer, text))
    return Differences(mine, others, len(own))
