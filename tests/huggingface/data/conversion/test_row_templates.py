"""Rows that the job writes itself, and what it puts before each question."""

from __future__ import annotations

from typing import Any

import pytest

from forge.errors import DataError
from forge_huggingface.rows import BadRow, Completion, Conversation, Pair, Prompt, Rated, Row, Text
from support.shapes import converted, says, shaped, spoken

ROW = {"question": "2 + 2?", "answer": 4, "level": "{easy}", "topic": None}


@pytest.mark.parametrize(
    ("template", "row"),
    [
        ("### Q: {question}\n### A: {answer} {{{level}}}", Text("### Q: 2 + 2?\n### A: 4 {{easy}}")),
        ({"prompt": "Q: {question}\n", "completion": "{answer}"}, Completion("Q: 2 + 2?\n", "4")),
        ({"completion": "{answer}", "prompt": "Q: {question}\n"}, Completion("Q: 2 + 2?\n", "4")),
        (
            {"system": "Be {level}.", "user": "{question}", "assistant": "{answer}"},
            Conversation(
                ({"role": "system", "content": "Be {easy}."}, *says(user="2 + 2?", assistant="4")), 2, turns=False
            ),
        ),
    ],
)
def test_a_row_is_what_the_job_writes_of_its_columns(template: Any, row: Row) -> None:
    assert converted(ROW, row_template=template) == [row]


def test_what_a_row_template_leaves_out_is_listed() -> None:
    shape = shaped(ROW, row_template="{question}")
    shape.convert(ROW)
    assert (shape.format, shape.used, shape.ignored) == ("text", {"question": "question"}, ("answer", "level"))


def test_prompts_are_written_too_and_their_columns_go_to_the_rewards() -> None:
    raw = {"question": "2 + 2?", "answer": "4"}
    (row,) = converted(raw, method="grpo", row_template={"prompt": "Q: {question}"})
    assert row == Prompt("Q: 2 + 2?", raw)
    (row,) = converted({"q": "2 + 2?", "answer": "4"}, method="grpo", row_template={"system": "s", "user": "{q}"})
    assert row == Prompt(tuple(says(system="s", user="2 + 2?")), {"q": "2 + 2?", "answer": "4"})


@pytest.mark.parametrize(
    ("method", "template", "words"),
    [
        ("sft", "{frage}", "x.jsonl has no column 'frage', which row_template names: its columns are 'question', "),
        ("dpo", "{question}", 'row_template makes rows of the format text, which method = "dpo" cannot train on'),
        ("grpo", {"user": "{question}", "assistant": "{answer}"}, "makes rows of the format input-output"),
        ("sft", {"user": "{question}"}, "makes rows of the format question"),
    ],
)
def test_a_row_template_that_cannot_be_used_is_refused(method: str, template: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        shaped(ROW, method=method, row_template=template)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"question": None, "answer": "4"}, "has nothing in 'question'"),
        ({"answer": "4"}, "has nothing in 'question': its columns are answer"),
        ({"question": ["a"], "answer": "4"}, "has no text in 'question': it is a list"),
        ({"question": True, "answer": "4"}, "has no text in 'question': it is a bool"),
    ],
)
def test_a_row_without_a_column_of_the_template_is_a_bad_row(raw: dict[str, Any], words: str) -> None:
    shape = shaped(ROW, row_template="{question} {answer}")
    with pytest.raises(BadRow) as caught:
        shape.convert(raw)
    assert words in str(caught.value)


def test_a_prefix_goes_before_the_first_question_whatever_the_format() -> None:
    asked, said = says(user="a"), says(assistant="b")

    def prefixed(raw: dict[str, Any], method: str = "sft", **keys: Any) -> Any:
        return converted(raw, method=method, prompt_prefix="sum: ", **keys)[0]

    assert prefixed({"prompt": "a", "completion": "b"}) == Completion("sum: a", "b")
    expected = [("system", "s"), ("user", "sum: a"), ("assistant", "b"), ("user", "a"), ("assistant", "b")]
    assert spoken(prefixed({"messages": [*asked, *said, *asked, *said], "system": "s"})) == expected
    assert spoken(prefixed({"question": "a", "answer": "b"}))[0] == ("user", "sum: a")
    pair = prefixed({"chosen": asked + said, "rejected": asked + says(assistant="c")}, "dpo")
    assert isinstance(pair, Pair)
    assert [spoken(side)[0][1] for side in (pair.chosen, pair.rejected)] == ["sum: a", "sum: a"]
    rated = prefixed({"prompt": "a", "completion": "b", "label": True}, "kto")
    assert rated == Rated(Completion("sum: a", "b"), good=True)
    assert prefixed({"prompt": "a"}, "grpo") == Prompt("sum: a", {})
    assert prefixed({"question": "a"}, "grpo").prompt == tuple(says(user="sum: a"))
    assert prefixed({"q": "a"}, "grpo", row_template={"user": "{q}"}).prompt == tuple(says(user="sum: a"))


def test_a_prefix_goes_behind_the_images_of_a_question() -> None:
    (row,) = converted({"image": "a.png", "question": "What?", "answer": "b"}, prompt_prefix="sum: ")
    assert isinstance(row, Conversation)
    parts = row.messages[0]["content"]
    assert [part["type"] for part in parts] == ["image", "text", "text"]
    assert [part.get("text") for part in parts] == [None, "sum: ", "What?"]


def test_a_prefix_without_a_question_is_refused() -> None:
    with pytest.raises(DataError, match="prompt_prefix would do nothing"):
        shaped({"text": "a"}, prompt_prefix="sum: ")
    with pytest.raises(BadRow, match="has no question: prompt_prefix goes before one"):
        converted({"messages": says(system="a", assistant="b")}, prompt_prefix="sum: ")
