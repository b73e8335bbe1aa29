"""Batches are TRL's own, tensor by tensor, of the rows of every layout."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.batches import answers as collators

if TYPE_CHECKING:
    from collections.abc import Mapping

PAD = 0
PAIRS = [
    {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]},
    {"prompt_ids": [7], "chosen_ids": [8], "rejected_ids": [9, 10, 11, 12]},
]
RATED = [
    {"prompt_ids": [1, 2, 3], "completion_ids": [4, 5], "label": True},
    {"prompt_ids": [7], "completion_ids": [8, 9, 10, 11], "label": False},
    {"prompt_ids": [12, 13], "completion_ids": [14], "label": True},
]


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].tolist() == tensor.tolist(), name


@pytest.mark.parametrize("known", [{}, {"ref_chosen_logps": -1.5, "ref_rejected_logps": -2.5}])
def test_pairs_are_those_of_dpo(known: dict[str, float]) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    rows = [{**row, **known} for row in PAIRS]
    same(collators.PairBatches(PAD)(rows), DataCollatorForPreference(pad_token_id=PAD)(rows))


@pytest.mark.parametrize("limit", [100, 5])  # of 5: a prompt with another row's answer is longer, and cut
@pytest.mark.parametrize("known", [{}, {"ref_logps": -1.5, "ref_KL_logps": -2.5}])
def test_rated_rows_are_those_of_kto(known: dict[str, float], limit: int) -> None:
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    theirs = DataCollatorForUnpairedPreference(pad_token_id=PAD, max_length=limit)
    rows = [{**row, **known} for row in RATED]
    others = [RATED[-1], *RATED[:-1]]
    kl = [{**row, "KL_completion_ids": other["completion_ids"]} for row, other in zip(rows, others, strict=True)]
    same(collators.RatedBatches(PAD, limit)(kl), theirs(kl))
    assert theirs(kl)["KL_input_ids"].shape[1] == min(limit, 6)
    plain = [{name: value for name, value in row.items() if name != "ref_KL_logps"} for row in rows]
    same(collators.RatedBatches(PAD, limit)(plain), theirs(plain))


@pytest.mark.parametrize("margins", [(0.5, 2.0), (0.5, None)])
def test_ranked_rows_are_those_of_a_reward_model(margins: tuple[float, float | None]) -> None:
    from trl.trainer.reward_trainer import DataCollatorForPreference

    rows = [
        {"chosen_ids": [1, 2, 3], "rejected_ids": [4], "margin": margins[0]},
        {"chosen_ids": [5], "rejected_ids": [6, 7], "margin": margins[1]},
    ]
    whole = None not in margins
    theirs = [row if whole else {key: row[key] for key in ("chosen_ids", "rejected_ids")} for row in rows]
    same(collators.RankedBatches(PAD)(rows), DataCollatorForPreference(pad_token_id=PAD)(theirs))


def test_split_pairs_are_those_of_orpo_and_cpo() -> None:
    from trl.experimental.utils import DPODataCollatorWithPadding

    theirs = []
    for row in PAIRS:
        entry: dict[str, Any] = {}
        for side in ("chosen", "rejected"):
            prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
            entry[f"{side}_input_ids"] = prompt + answer
            entry[f"{side}_attention_mask"] = [1] * len(prompt + answer)
            entry[f"{side}_labels"] = [-100] * len(prompt) + answer
        theirs.append(entry)
    batch = DPODataCollatorWithPadding(pad_token_id=PAD, is_encoder_decoder=False)(theirs)
    same(collators.Split(PAD)(PAIRS), batch)


def test_texts_for_encoder_and_decoder_are_those_of_transformers(tiny_model: Any) -> None:
    import torch
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq

    class Shifting(torch.nn.Module):
        def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Any:
            return labels.roll(1)

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), Shifting()
    rows = [{"input_ids": [5, 6, 7], "labels": [8]}, {"input_ids": [9], "labels": [10, 11]}]
    theirs = DataCollatorForSeq2Seq(tokenizer, model=model)([dict(row) for row in rows])
    same(collators.Seq2SeqBatches(tokenizer.pad_token_id, model)(rows), theirs)
    assert "decoder_input_ids" not in collators.Seq2SeqBatches(0, SimpleNamespace())(rows)


@pytest.mark.parametrize(
    "collator", [collators.PairBatches(0), collators.Split(0), collators.RatedBatches(0, 8), collators.RankedBatches(0)]
)
def test_a_collator_can_be_sent_to_a_loader_process(collator: Any) -> None:
    assert pickle.loads(pickle.dumps(collator)) == collator


def test_no_row_is_changed() -> None:
    before = json.dumps([PAIRS, RATED])
    collators.PairBatches(PAD)(PAIRS), collators.Split(PAD)(PAIRS), collators.RatedBatches(PAD, 8)(RATED)
    assert json.dumps([PAIRS, RATED]) == before
