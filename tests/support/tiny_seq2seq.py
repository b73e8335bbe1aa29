"""Tiny encoder-decoder models: real architectures with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.tiny import make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def make_t5(folder: Path) -> Path:
    """Write a random T5 with a tokenizer that ends every text with EOS, as T5's does."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    _tokenizer(folder, "$A </s>", ["</s>"])
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=400,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        n_positions=16,  # no limit: positions are relative
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_bart(folder: Path) -> Path:
    """Write a random BART: its decoder starts with EOS, and the first token that it writes is always BOS."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    _tokenizer(folder, "<s> $A </s>", ["<s>", "</s>"])
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=400,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=1,
        forced_eos_token_id=2,
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path, single: str, special: list[str]) -> None:
    """Write a tokenizer that puts special tokens around every text, and has no chat template."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    make_tokenizer(folder, template=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in special]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ids)
    tokenizer.save_pretrained(folder)
