"""Heads that read a text as a whole: which modules they are, by transformers' own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge_huggingface.heads.heads import head_modules, is_head
from support.tiny_encoders import make_encoder

if TYPE_CHECKING:
    from pathlib import Path

HEADS = {
    "bert": ["classifier", "pooler"],
    "distilbert": ["pre_classifier", "classifier"],
    "modernbert": ["head", "classifier"],
    "roberta": ["classifier"],
}


@pytest.mark.parametrize("family", HEADS)
def test_what_a_checkpoint_of_a_language_model_lacks_is_a_part_of_the_head(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification
    model, report = kind.from_pretrained(make_encoder(tmp_path / "m", family), num_labels=3, output_loading_info=True)
    assert head_modules(model) == HEADS[family]
    prefix = model.base_model_prefix
    assert report["missing_keys"]
    assert all(is_head(name, prefix) for name in report["missing_keys"])
    assert [is_head(name, "") for name in ("classifier.weight", "layers.0.weight")] == [True, False]
    assert not any(is_head(name, prefix) for name, _ in model.named_parameters() if ".layer" in name)
