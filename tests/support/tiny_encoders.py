"""Tiny encoders: real architectures with random weights, and a tokenizer that puts its marks around a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.tiny import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def make_encoder(folder: Path, family: str = "bert") -> Path:
    """Write a random encoder as its language model is published, and return its folder."""
    import torch

    _tokenizer(folder, "<s>" if family in {"roberta", "xlm-roberta"} else "[CLS]")
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder)
    return folder


def _bert() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**_SIZES, max_position_embeddings=64))


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    sizes = {"vocab_size": 400, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "pad_token_id": 0}
    return DistilBertForMaskedLM(DistilBertConfig(**sizes, max_position_embeddings=64))


def _modernbert() -> Any:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    marks = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    return ModernBertForMaskedLM(ModernBertConfig(**_SIZES, **marks, max_position_embeddings=64))


def _roberta() -> Any:
    from transformers import RobertaConfig, RobertaForMaskedLM

    sizes = {**_SIZES, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return RobertaForMaskedLM(RobertaConfig(**sizes, max_position_embeddings=34, type_vocab_size=1))


_SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}

FAMILIES: Mapping[str, Callable[[], Any]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "roberta": _roberta,
}


def _tokenizer(folder: Path, begin: str) -> None:
    """Write a tokenizer of words and their pieces without an end token, as BERT's is."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    end = "</s>" if begin == "<s>" else "[SEP]"
    pad, unknown = ("<pad>", "<unk>") if begin == "<s>" else ("[PAD]", "[UNK]")
    special = [begin, pad, end, unknown] if begin == "<s>" else [pad, begin, end, unknown]
    words = sorted({word.strip(".,:?!") for word in TEXT.lower().split()} - {""})
    letters = sorted({letter for word in words for letter in word})
    pieces = dict.fromkeys([*special, *words, *letters, *(f"##{letter}" for letter in letters)])
    inner = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token=unknown))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B {end}" if begin == "<s>" else f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(begin, special.index(begin)), (end, 2)],
    )
    marks = {"cls_token": begin, "sep_token": end, "pad_token": pad, "unk_token": unknown}
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if begin != "<s>" else ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **marks, model_max_length=512, model_input_names=inputs)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
