"""Packing and padding change the shape of a batch and nothing that is learned."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge_huggingface.batches.tokens import TokenCollator
from forge_huggingface.kernels.attention import KNOWN_HERE, BoundariesLost, register
from forge_huggingface.rules.attention import APART

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
    batch = TokenCollator(2, rounded=True)(ROWS) if form == "padded" else TokenCollator(2)([packed(ROWS)])
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
    batch = TokenCollator(2, rounded=True)([{"input_ids": [5, 2], "labels": [5, 2]}, ROWS[0]])
    assert batch["labels"][0].tolist() == [5, 2] + [-100] * 62
    assert batch["input_ids"][0].tolist() == [5, 2] + [2] * 62
    assert batch["attention_mask"][0].tolist() == [1, 1] + [0] * 62


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
    collator = TokenCollator(3, rounded=True)
    assert pickle.loads(pickle.dumps(collator)) == collator


RAGGED = [
    {"input_ids": list(range(3, 3 + count)), "labels": [-100] * (count // 3) + list(range(3 + count // 3, 3 + count))}
    for count in (3, 40, 17, 5)
]


def families() -> list[Any]:
    from transformers import AutoConfig

    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    windows = {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}
    narrow = {"cohere2", "gemma3_text", "ministral", "mistral", "olmo3", "phi3", "qwen2", "starcoder2"}
    return [
        AutoConfig.for_model(name, **sizes, **heads, **ids, **(windows if name in narrow else {}))
        for name in sorted(APART)
    ]


def gradients(config: Any, attention: str, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float64).train()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return loss.item(), torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize("config", families(), ids=lambda config: config.model_type)
def test_rows_end_to_end_have_the_gradient_of_padded_ones(config: Any) -> None:
    register()
    loss, gradient = gradients(config, "sdpa", TokenCollator(0)(RAGGED))
    for rounded in (False, True):
        batch = TokenCollator(0, flat=True, rounded=rounded, boundaries=True, mask=KNOWN_HERE)(RAGGED)
        assert batch["input_ids"].shape[0] == 1
        found, other = gradients(config, "varlen", batch)
        assert found == pytest.approx(loss, abs=1e-5)  # transformers makes logits float32
        assert (other - gradient).abs().max() <= 1e-7 * gradient.abs().max()  # as some families' norms are


def test_rows_of_equal_length_are_not_laid_end_to_end() -> None:
    collator = TokenCollator(0, flat=True)
    assert "attention_mask" in collator([ROWS[0], ROWS[0]])
    assert "attention_mask" not in collator(RAGGED)


def test_what_fills_a_batch_is_rows_that_nobody_learns_from_and_no_longer_than_the_others() -> None:
    rows = [{"input_ids": [5] * 40, "labels": [5] * 40}, {"input_ids": [5] * 30, "labels": [5] * 30}]
    batch = TokenCollator(0, flat=True, rounded=True, boundaries=True, counted=True)(rows)
    assert batch["cu_seq_lens_q"].tolist() == [0, 40, 70, 110, 128]
    assert (batch["max_length_q"], batch["tokens"]) == (40, 70)
    assert set(batch["labels"][0, 70:].tolist()) == {-100}
    assert batch["position_ids"][0, 70:112].tolist() == [*range(40), 0, 1]


def test_a_model_that_loses_the_boundaries_is_found_out(tiny_model: Path) -> None:
    register()
    model = model_of(tiny_model, "varlen")
    batch = TokenCollator(0, flat=True, boundaries=True, mask=KNOWN_HERE)(RAGGED)
    with pytest.raises(BoundariesLost):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
