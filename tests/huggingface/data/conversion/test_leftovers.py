"""Columns that some rows use and others do not: refused where that changes what is learnt, else counted."""

from __future__ import annotations

from typing import Any

import pytest

from forge_huggingface.rows import BadRow, Completion, Pair, Prompt
from support.shapes import converted, says, shaped, spoken

ASKED = says(user="Hi")
SIDES = {"chosen": "Hello", "rejected": "Go away"}
FIRST = {"question": "Hi", "history": [["a", "b"]], "system": "s", **SIDES}


def bad(*rows: dict[str, Any], **keys: Any) -> BadRow:
    """Return the verdict on the last row of a source."""
    shape = shaped(*rows, **keys)
    for row in rows[:-1]:
        shape.convert(row)
    with pytest.raises(BadRow) as caught:
        shape.convert(rows[-1])
    return caught.value


def ignored(*rows: dict[str, Any], **keys: Any) -> tuple[str, ...]:
    shape = shaped(*rows, **keys)
    for row in rows:
        shape.convert(row)
    return shape.ignored


@pytest.mark.parametrize("prompt", ["Hi", ASKED])
def test_a_history_that_a_pair_has_no_place_for_is_not_left_out(prompt: Any) -> None:
    for rows in ([FIRST], []):
        found = bad(*rows, {"prompt": prompt, "history": [["c", "d"]], **SIDES}, method="dpo")
        assert "has 'history', which would be left out: its prompt is 'prompt'" in str(found)
    whole = says(user="c", assistant="d") + ASKED
    (row,) = converted({"prompt": whole, "history": [["c", "d"]], **SIDES}, method="dpo")
    assert isinstance(row, Pair)
    assert [text for _, text in spoken(row.chosen)] == ["c", "d", "Hi", "Hello"]


def test_a_system_text_beside_a_plain_prompt_is_not_left_out() -> None:
    raw = {"prompt": "Hi", "system": "Be kind.", **SIDES}
    found = bad(raw, method="dpo")
    assert "has 'system', which would be left out" in str(found)
    assert found.do
    assert 'columns = { question = "prompt" }' in found.do
    (row,) = converted(raw, method="dpo", columns={"question": "prompt"})
    assert isinstance(row, Pair)
    assert [text for _, text in spoken(row.chosen)] == ["Be kind.", "Hi", "Hello"]
    (row,) = converted({**raw, "prompt": "Be kind.\nHi"}, method="dpo")
    assert row == Pair(Completion("Be kind.\nHi", "Hello"), Completion("Be kind.\nHi", "Go away"))
    rated = {"prompt": "Hi", "completion": "Hello", "label": True, "system_prompt": "s"}
    assert "has 'system_prompt', which would be left out" in str(bad(rated, method="kto"))


def test_a_question_beside_a_prompt_is_told_with_the_number_of_its_rows() -> None:
    other = {"prompt": "Hi", "question": "z", **SIDES}
    assert ignored(FIRST, other, other, {**other, "question": "Hi"}, method="dpo") == ("question (in 2 rows)",)
    assert ignored(other, FIRST, method="dpo") == ("question (in 1 row)",)
    assert ignored(other, method="dpo") == ("question",)
    assert ignored(FIRST, {**other, "question": "Hi"}, method="dpo") == ()


def test_two_different_texts_for_the_same_thing_are_refused_and_equal_ones_are_not() -> None:
    row = {"instruction": "i", "output": "o"}
    both = {**row, "input": "x", "context": "y"}
    found = bad({**row, "context": "c"}, both)
    assert str(found) == "has several columns that could be its input: 'input' and 'context'"
    assert spoken(converted(both, columns={"input": "input"})[0])[0] == ("user", "i\n\nx")
    assert spoken(converted({**both, "context": "x"})[0])[0] == ("user", "i\n\nx")
    assert "'system' and 'system_prompt'" in str(bad({**row, "system": "a", "system_prompt": "b"}))
    found = bad({"question": "a", "input": "b", **SIDES}, method="dpo")
    assert str(found) == "has several columns that could be its question: 'question' and 'input'"
    (pair,) = converted({"question": "a", "input": "b", **SIDES}, method="dpo", columns={"instruction": "question"})
    assert isinstance(pair, Pair)
    assert spoken(pair.chosen)[0] == ("user", "a\n\nb")
    (pair,) = converted({"question": "a", "instruction": "a", **SIDES}, method="dpo")
    assert isinstance(pair, Pair)
    assert spoken(pair.chosen)[0] == ("user", "a")


def test_another_answer_and_tools_that_plain_texts_do_not_use_are_told() -> None:
    rows = [{"question": "q", "solution": "o"}, {"question": "q", "output": "o", "solution": "p", "id": 1}]
    assert ignored(*rows) == ("solution (in 1 row)", "id")
    tools = [{"name": "clock"}]
    rows = [{"prompt": ASKED, "completion": "a", "tools": tools}, {"prompt": "a", "completion": "b", "tools": tools}]
    assert ignored(*rows) == ("tools (in 1 row)",)


def test_a_prompt_among_questions_is_not_lost() -> None:
    asked = {"question": "q", "answer": "4"}
    found = bad(asked, {"prompt": ASKED, "question": "z"}, method="grpo")
    assert "has a prompt and another question: 'prompt' and 'question' differ" in str(found)
    rows = [asked, {"prompt": ASKED, "question": "Hi"}]
    assert converted(*rows, method="grpo")[1] == Prompt(tuple(ASKED), {})
    rows = [asked, {"prompt": "Solve: z", "question": "z", "answer": "1"}]
    assert converted(*rows, method="grpo", format="question")[1] == Prompt(tuple(says(user="z")), {"answer": "1"})
    assert ignored(*rows, method="grpo", format="question") == ("prompt",)
    (row,) = converted({"prompt": ASKED, "question": "z"}, method="grpo")
    assert row == Prompt(tuple(ASKED), {"question": "z"})


def test_reward_functions_get_the_columns_of_a_template() -> None:
    raw = {"question": "z", "answer": "1"}
    (row,) = converted(raw, method="grpo", row_template={"user": "Solve: {question}"})
    assert row == Prompt(tuple(says(user="Solve: z")), raw)
