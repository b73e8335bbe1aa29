"""The probe before training: its rows, and what it may change to make them fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from forge.model.facts import ModelFacts
from forge_huggingface.memory.fit import blind
from forge_huggingface.methods import splits
from forge_huggingface.training.probe import _longest_of, longest
from support.measuring import CPU, make_job


def test_the_probe_of_kto_has_the_longest_answers_on_both_sides() -> None:
    rows = [
        {"prompt_ids": [1], "completion_ids": [2] * length, "KL_completion_ids": [3], "label": True}
        for length in (1, 9, 8, 2)
    ]
    data: Any = SimpleNamespace(train=rows, longest=(1, 2))
    assert [len(row["KL_completion_ids"]) for row in longest(data, 2)] == [8, 9]
    assert [len(row["KL_completion_ids"]) for row in rows] == [1] * 4, "the rows themselves stay"


@pytest.mark.parametrize(
    ("method", "options", "same"),
    [
        ("sft", {}, True),
        ("kto", {"loss_type": "kto"}, False),  # compares the rows of a batch
        ("kto", {"loss_type": "apo_zero_unpaired"}, True),
        ("grpo", {"steps_per_generation": None}, True),  # as many answers at a time, since accumulation makes up for it
        ("grpo", {"steps_per_generation": 2}, False),
        ("sdpo", {"steps_per_generation": 2}, False),
        ("dpo", {"loss_type": ["sigmoid"]}, True),
        ("dpo", {"loss_type": ["sigmoid", "sft"]}, False),  # a mean over the tokens of a batch
        ("dpo", {"loss_type": ["aot"]}, False),  # sorts the rows of a batch
        ("orpo", {}, False),
        ("cpo", {"loss_type": "simpo"}, False),
        ("grpo", {"loss_type": "dapo"}, True),
        ("grpo", {"loss_type": "bnpo"}, False),
        ("reward", {}, True),
        ("reward", {"dataloader_drop_last": True}, False),
        ("reward", {"train_sampling_strategy": "batch_rebalance"}, False),
        ("sft", {"train_sampling_strategy": "batch_rebalance"}, True),
        ("sft", {"router_aux_loss_coef": 0.01}, False),  # a mean over the tokens of a batch
    ],
)
def test_memory_is_never_won_by_another_training(method: str, options: dict[str, Any], same: bool) -> None:
    assert splits(method, options) is same
    job = make_job(method=method, per_device_train_batch_size=8, gradient_checkpointing=True, **options)
    facts = ModelFacts(id="m", source="unknown")
    less = {each.key: each.value for each in blind(CPU, job, facts, asked=job, named=frozenset(), failed=True)}
    halves = {"train.per_device_train_batch_size": 4, "train.gradient_accumulation_steps": 2}
    assert less == (halves if same else {})


def test_the_longest_held_out_rows_are_tried_wherever_they_are() -> None:
    rows = Dataset.from_dict({"input_ids": [[1] * (1 + index % 7 + 9 * (index == 2001)) for index in range(3000)]})
    assert [len(row["input_ids"]) for row in _longest_of(rows, 3)] == [16, 7, 7]
    assert [row["input_ids"] for row in _longest_of(iter([{"input_ids": [1]}, {"input_ids": [1, 1]}]), 1)] == [[1]]
