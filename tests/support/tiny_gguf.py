"""Random models of the architectures that forge writes, with tokenizers of the two kinds that it writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.tiny import CHATML, TEXT, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

VOCAB = 400
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB + 16,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "long_factor": [1.0 + 0.4 * i for i in range(8)],
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "original_max_position_embeddings": 512,
    "factor": 2.0,
}
_EXPERTS = {"num_experts_per_tok": 2}
_SLIDING = {"layer_types": ["sliding_attention"] * 3, "sliding_window": 16, "query_pre_attn_scalar": 16}

# name: model type, what differs from the common config, kind of tokenizer
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {}, "bytes"),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "attention_bias": True}, "bytes"),
    "llama-3.1": ("llama", {"rope_parameters": LLAMA3}, "bytes"),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, "bytes"),
    "llama-2": ("llama", {}, "pieces"),
    "mistral": ("mistral", {"head_dim": 32, "sliding_window": None}, "pieces"),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, "bytes"),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}, "bytes"),
    "gemma": ("gemma", {"head_dim": 16, "tie_word_embeddings": True}, "pieces"),
    "gemma2": (
        "gemma2",
        {
            "head_dim": 16,
            **_SLIDING,
            "tie_word_embeddings": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        "pieces",
    ),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 16,
            **_SLIDING,
            "num_hidden_layers": 6,
            "tie_word_embeddings": True,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        },
        "pieces",
    ),
    "phi3": ("phi3", {"sliding_window": None}, "pieces"),
    "phi3-128k": (
        "phi3",
        {"sliding_window": None, "rope_parameters": LONG, "original_max_position_embeddings": 512},
        "pieces",
    ),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}, "bytes"),
    "granite": (
        "granite",
        {"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 4.0},
        "bytes",
    ),
    "olmo2": ("olmo2", {}, "bytes"),
    "qwen3moe": (
        "qwen3_moe",
        {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "head_dim": 32, "norm_topk_prob": True},
        "bytes",
    ),
    "olmoe": ("olmoe", {**_EXPERTS, "num_experts": 4, "num_key_value_heads": 4}, "bytes"),
    "mixtral": ("mixtral", {**_EXPERTS, "num_local_experts": 4}, "pieces"),
    "granitemoe": (
        "granitemoe",
        {
            **_EXPERTS,
            "num_local_experts": 4,
            "attention_multiplier": 0.2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.4,
            "logits_scaling": 4.0,
        },
        "bytes",
    ),
}


def make(folder: Path, name: str, **changes: Any) -> Path:
    """Write a random model and its tokenizer, and return the folder."""
    from forge_gguf.trial.preflight import random_model

    kind, differs, tokenizer = MODELS[name]
    random_model({**COMMON, **differs, **changes, "model_type": kind}, folder)
    if tokenizer == "bytes":
        make_tokenizer(folder, vocab=VOCAB)
    else:
        make_pieces(folder)
    return folder


def make_pieces(
    folder: Path, *, prefix: str | None = None, template: str | None = CHATML, stripping: tuple[str, ...] = ()
) -> Path:
    """Write a BPE tokenizer with byte fallback, as SentencePiece's are converted.

    Args:
        folder: The folder.
        prefix: Where a space is put in front: ``"always"`` behind marks too, as Llama 2's, or ``"first"``.
        template: The chat template.
        stripping: Further marks, which take the white space behind them, as Phi-3's.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(pieces), special_tokens=[], show_progress=False)
    inner.train_from_iterator(["▁".join(line.split(" ")) for line in TEXT.splitlines()], trainer)
    learned = json.loads(inner.to_str())["model"]
    names = [*pieces, *(token for token, _ in sorted(learned["vocab"].items(), key=lambda item: item[1]))]
    merges = [tuple(merge) for merge in learned["merges"]]
    whole = Tokenizer(
        models.BPE(
            {token: index for index, token in enumerate(dict.fromkeys(names))},
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        whole.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        whole.normalizer = normalizers.Replace(" ", "▁")
    whole.decoder = decoders.Sequence(steps)
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    whole.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    whole.add_special_tokens([AddedToken(name, rstrip=True, special=True, normalized=False) for name in stripping])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def make_like_llama3(folder: Path) -> Path:
    """Write the tiny byte-level tokenizer with the pattern by which Llama 3 splits texts."""
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    make_tokenizer(folder, vocab=VOCAB)
    path = folder / "tokenizer.json"
    inner = Tokenizer.from_file(str(path))
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.save(str(path))
    return folder
