"""Packing and padding change the shape of a batch and nothing that is learned."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge_huggingface.batches.tokens import TokenCollator

if TYPE_CHECKING:
    from pathlib import Path


ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]},
    {"input_ids": [30, 31, 32], "labels": [30, 31, 32]},
    {"input_ids": [40, 41, 42, 43], "labels": [-100, 41, 42, 43]},
]


def packed(rows: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in row["labels"]],
        "seq_lengths": [len(row["input_ids"]) for row in rows],
    }


def model_of(folder: Path, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(tiny_model: Path, attention: str) -> None:
    model = model_of(tiny_model, attention)
    batch = TokenCollator(0)([packed(ROWS[:2]), packed(ROWS[2:])])
    assert "attention_mask" not in batch
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=torch.tensor([row["input_ids"]])).logits[0] for row in ROWS])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together, model(input_ids=batch["input_ids"], use_cache=False).logits[0], atol=1e-3), (
        "the test must be able to see a leak"
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_the_loss_of_a_batch_is_that_of_its_rows(tiny_model: Path, attention: str, form: str) -> None:
    model = model_of(tiny_model, attention)
    batch = TokenCollator(2, multiple=8)(ROWS) if form == "padded" else TokenCollator(2)([packed(ROWS)])
    with torch.no_grad():
        loss = model(**batch, use_cache=False).loss
        total, count = 0.0, 0
        for row in ROWS:
            taught = sum(label != -100 for label in row["labels"][1:])
            total += (
                model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss * taught
            )
            count += taught
    assert loss.item() == pytest.approx(float(total) / count, abs=1e-5)


def test_padding_writes_only_minus_100_into_labels_even_if_pad_is_the_end_token() -> None:
    batch = TokenCollator(2, multiple=4)([{"input_ids": [5, 2], "labels": [5, 2]}, ROWS[0]])
    assert batch["labels"][0].tolist() == [5, 2] + [-100] * 6
    assert batch["input_ids"][0].tolist() == [5, 2] + [2] * 6
    assert batch["attention_mask"][0].tolist() == [1, 1] + [0] * 6


def test_a_packed_batch_equals_trls_padding_free_one() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [packed(ROWS[:2]), packed(ROWS[2:])]
    ours = TokenCollator(0, boundaries=True)(rows)
    theirs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    assert {"input_ids", "labels", "position_ids"} <= theirs.keys()
    for key in ours.keys() & theirs.keys():  # the boundaries are new in trl 1.16
        value = ours[key]
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[key])), key


def test_a_collator_can_be_sent_to_another_process() -> None:
    collator = TokenCollator(3, multiple=8)
    assert pickle.loads(pickle.dumps(collator)) == collator
