"""A random BERT of a few thousand parameters with a tokenizer of bytes, and rows for embedding models and rerankers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def make_bert(folder: Path, *, architecture: str = "BertModel", labels: int = 1) -> Path:
    """Write the model: bare, or with a head for labels."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate([*special, *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{word[1:-1].lower()}_token": word for word in special}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)
    config = BertConfig(
        vocab_size=len(special) + len(letters),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        num_labels=labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    getattr(transformers, architecture)(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


THINGS = [
    "apple",
    "bridge",
    "candle",
    "desert",
    "engine",
    "forest",
    "guitar",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "lemon",
    "mirror",
    "needle",
    "ocean",
    "pencil",
    "quartz",
    "river",
    "saddle",
    "tunnel",
    "violin",
    "window",
]


def pairs(count: int = 16) -> list[dict[str, Any]]:
    """Return questions with the text that answers each."""
    return [{"anchor": f"what is a {word}?", "positive": f"a {word} is a thing"} for word in THINGS[:count]]


def triplets(count: int = 16) -> list[dict[str, Any]]:
    """Return the same with a text that does not answer it."""
    return [row | {"negative": f"nobody knows, {at}"} for at, row in enumerate(pairs(count))]


def scored(count: int = 16) -> list[dict[str, Any]]:
    """Return pairs with a score."""
    return [
        {"sentence1": row["anchor"], "sentence2": row["positive"], "score": at % 5 / 4}
        for at, row in enumerate(pairs(count))
    ]


def labelled(count: int = 16) -> list[dict[str, Any]]:
    """Return two documents for each query, of which one answers it."""
    return [
        {"query": row["anchor"], "document": row[name], "label": int(name == "positive")}
        for row in triplets(count)
        for name in ("positive", "negative")
    ]
