"""Rows of token ids: what is taken from their columns, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from forge_huggingface.rows import BadRow, Ids
from support.shapes import shaped


def read(*rows: dict[str, Any], columns: dict[str, str] | None = None) -> list[Any]:
    shape = shaped(*rows, columns=columns or {})
    assert shape.format == "tokens"
    return [shape.convert(row) for row in rows]


@pytest.mark.parametrize(
    ("beside", "labels"),
    [
        ({}, (5, 6, 7)),
        ({"labels": [-100, 6, 7]}, (-100, 6, 7)),
        ({"loss_mask": [0, 1, 1]}, (-100, 6, 7)),
        ({"completion_mask": [0, 0, 1]}, (-100, -100, 7)),
        ({"assistant_masks": [0, 1, 0]}, (-100, 6, -100)),
        ({"labels": [-100, 6, 7], "completion_mask": [0, 1, 1], "attention_mask": [1, 1, 1]}, (-100, 6, 7)),
        ({"labels": None, "loss_mask": "[1, 1, 0]"}, (5, 6, -100)),
    ],
)
def test_the_columns_say_what_is_in_the_loss(beside: dict[str, Any], labels: tuple[int, ...]) -> None:
    assert read({"input_ids": [5, 6, 7], **beside}) == [Ids((5, 6, 7), labels)]


def test_the_names_of_columns_are_those_of_data_sets_or_of_the_job() -> None:
    assert read({"tokens": [5, 6]}) == [Ids((5, 6), (5, 6))]
    named = {"input_ids": "ids", "loss_mask": "mine"}
    assert read({"ids": [5, 6], "mine": [0, 1], "completion_mask": [1, 0]}, columns=named) == [Ids((5, 6), (-100, 6))]


def test_a_mask_that_only_a_later_row_has_is_not_passed_over() -> None:
    others = [{"input_ids": [5, 6], "assistant_masks": [0, 1]}, {"input_ids": [5], "labels": [-100]}]
    assert [row.labels for row in read({"input_ids": [5, 6]}, *others)] == [(5, 6), (-100, 6), (-100,)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input_ids": []}, "has nothing in 'input_ids': the list is empty"),
        ({"input_ids": None}, "has nothing in 'input_ids'"),
        ({"input_ids": 5}, "has no list of numbers in 'input_ids': it is a int"),
        ({"input_ids": ["a"]}, "has no list of whole numbers in 'input_ids': number 0 is 'a'"),
        ({"input_ids": [5, 6.0]}, "has no list of whole numbers in 'input_ids': number 1 is 6.0"),
        ({"input_ids": [5, True]}, "has no list of whole numbers in 'input_ids': number 1 is True"),
        ({"input_ids": [[5, 6]]}, "has no list of whole numbers in 'input_ids': number 0 is [5, 6]"),
        ({"input_ids": [5, 6], "labels": [5]}, "has 1 numbers in 'labels' and 2 tokens"),
        ({"input_ids": [5, 6], "labels": [6, -100]}, "has the label 6 at token 0, which is 5"),
        ({"input_ids": [5, 6], "loss_mask": [0, 2]}, "has a mask in 'loss_mask' with other numbers than 0 and 1"),
        ({"input_ids": [5, 6], "attention_mask": [1, 0]}, "has an attention mask that is not 1 everywhere"),
        (
            {"input_ids": [5, 6], "completion_mask": [0, 1], "assistant_masks": [1, 1]},
            "has several columns that could be its loss_mask: 'completion_mask' and 'assistant_masks'",
        ),
        ({"input_ids": [5, 6], "labels": [5, 6], "loss_mask": [0, 1]}, "has labels and 'loss_mask', which disagree"),
    ],
)
def test_what_is_no_row_of_tokens_is_a_bad_row(row: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRow, match=re.escape(words)):
        read({"input_ids": [5]}, row)
