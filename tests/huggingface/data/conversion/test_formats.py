"""Formats: told by columns, reported, and strict about rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge.errors import DataError
from forge_huggingface.rows import AlienRow, BadRow, Completion, Conversation, Row, Text
from support.shapes import converted, shaped, spoken

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def convert(raw: dict[str, Any], **keys: Any) -> tuple[str, Row]:
    shape = shaped(raw, **keys)
    return shape.format, shape.convert(raw)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"messages": [USER, ANSWER]}, "messages"),
        ({"conversations": [USER, ANSWER]}, "messages"),
        ({"conversation": [USER, ANSWER]}, "messages"),
        ({"messages": json.dumps([USER, ANSWER])}, "messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, "sharegpt"),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt-completion"),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "instruction"),
        ({"instruction": "Hi", "response": "Hello"}, "instruction"),
        ({"input": "Hi", "output": "Hello"}, "input-output"),
        ({"question": "Hi", "answer": "Hello"}, "input-output"),
        ({"problem": "Hi", "solution": "Hello"}, "input-output"),
        ({"query": "Hi", "response": "Hello"}, "input-output"),
        ({"instruction": "Hi", "context": "", "response": "Hello", "category": "open_qa"}, "instruction"),
    ],
)
def test_a_conversation_is_the_same_in_every_format(raw: dict[str, Any], name: str) -> None:
    found, row = convert(raw)
    assert found == name
    assert isinstance(row, Conversation)
    assert row.messages == (USER, ANSWER)
    assert row.start == 1
    assert row.turns == (name in ("messages", "sharegpt"))


def test_strings_stay_strings() -> None:
    assert convert({"prompt": "a", "completion": "b"}) == ("prompt-completion", Completion("a", "b"))
    assert convert({"text": "a"}) == ("text", Text("a"))


def test_an_instruction_takes_its_input_and_system() -> None:
    _, row = convert({"instruction": "Translate", "input": "Hi", "output": "Hallo", "system": "Be short."})
    assert isinstance(row, Conversation)
    assert [message["content"] for message in row.messages] == ["Be short.", "Translate\n\nHi", "Hallo"]
    assert row.start == 2


def test_columns_of_the_job_come_before_names_that_forge_knows() -> None:
    raw = {"dialog": [USER, ANSWER], "text": "x", "messages": "none"}
    shape = shaped(raw, columns={"messages": "dialog"})
    shape.convert(raw)
    assert (shape.format, shape.used, shape.ignored) == ("messages", {"messages": "dialog"}, ("text", "messages"))
    assert convert({"q": "a", "a": "b"}, columns={"prompt": "q", "completion": "a"})[1] == Completion("a", "b")


def test_columns_that_fit_nothing_are_listed_beside_what_is_needed() -> None:
    with pytest.raises(DataError) as caught:
        convert({"foo": 1, "bar": 2})
    assert "'foo', 'bar'" in str(caught.value)
    assert "prompt-completion needs prompt and completion" in str(caught.value)
    with pytest.raises(DataError, match="is not of the format text"):
        convert({"foo": 1}, format="text")
    with pytest.raises(DataError, match="has no column 'q'"):
        convert({"foo": 1}, columns={"prompt": "q"})
    with pytest.raises(DataError, match="'promt' is no name of forge"):
        convert({"q": 1}, columns={"promt": "q"})


def test_text_parts_are_joined_and_sounds_are_refused() -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}]
    _, row = convert({"messages": [{"role": "user", "content": parts}, ANSWER]})
    assert isinstance(row, Conversation)
    assert row.messages[0]["content"] == "Hi there"
    with pytest.raises(AlienRow, match="a part of type 'audio'"):
        convert({"messages": [{"role": "user", "content": [{"type": "audio"}]}, ANSWER]})


def test_images_keep_their_places_between_texts() -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "image"}]
    _, row = convert({"messages": [{"role": "user", "content": parts}, ANSWER], "images": ["a.png"]})
    assert isinstance(row, Conversation)
    assert row.messages[0]["content"] == parts
    assert row.pictures == ("a.png",)
    with pytest.raises(BadRow, match="has 0 images and 1 places"):
        convert({"messages": [{"role": "user", "content": parts}, ANSWER]})


def test_tools_and_tool_calls_are_kept_and_empty_columns_are_not() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "clock"}]}
    raw = {
        "messages": [{**USER, "name": None}, call, {"role": "tool", "content": "12:00"}, ANSWER],
        "tools": '[{"name": "clock", "a": 1}]',
    }
    _, row = convert(raw)
    assert isinstance(row, Conversation)
    assert row.tools == ({"type": "function", "function": {"name": "clock", "a": 1}},)
    assert row.messages[0] == USER
    called = {"type": "function", "function": {"name": "clock", "arguments": {}}}
    assert row.messages[1] == {"role": "assistant", "content": "", "tool_calls": [called]}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "has no messages"),
        ("x", "not JSON"),
        ([ANSWER], "starts with an assistant turn"),
        ([USER, {"role": "narrator", "content": "x"}], "unknown role 'narrator': message 2"),
        ([USER, {"role": "assistant", "content": " "}], "empty assistant turn: message 2"),
        ([USER, {"role": "assistant", "content": 3}], "without text"),
        ([USER, {"content": "x"}], "message without 'role'"),
        ([USER, "x"], "not an object"),
        (None, "has nothing in 'messages'"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(messages: Any, message: str) -> None:
    shape = shaped({"messages": [USER, ANSWER]})
    with pytest.raises(BadRow) as caught:
        shape.convert({"messages": messages})
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, "", "  "])
def test_a_text_must_be_one(value: Any) -> None:
    shape = shaped({"prompt": "a", "completion": "b"})
    with pytest.raises(BadRow):
        shape.convert({"prompt": "a", "completion": value})


def test_every_row_is_asked_for_the_columns_that_it_may_have() -> None:
    rows = [
        {"instruction": "Name a colour.", "output": "Blue."},
        {"instruction": "Translate.", "input": "Good morning", "response": "Guten Morgen", "note": "x"},
        {"instruction": "Count.", "input": None, "output": "un", "system_prompt": "Answer in French.", "note": None},
    ]
    shape = shaped(*rows)
    assert [spoken(shape.convert(row)) for row in rows] == [
        [("user", "Name a colour."), ("assistant", "Blue.")],
        [("user", "Translate.\n\nGood morning"), ("assistant", "Guten Morgen")],
        [("system", "Answer in French."), ("user", "Count."), ("assistant", "un")],
    ]
    assert shape.used == {
        "instruction": "instruction",
        "output": "output/response",
        "input": "input",
        "system": "system_prompt",
    }
    assert shape.ignored == ("note",)


def test_tools_and_images_of_a_later_row_are_taken_too() -> None:
    rows = [{"messages": [USER, ANSWER], "tools": None}, {"messages": [USER, ANSWER], "functions": [{"name": "clock"}]}]
    tools = [row.tools for row in converted(*rows) if isinstance(row, Conversation)]
    assert tools == [None, ({"type": "function", "function": {"name": "clock"}},)]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([{"messages": None}, {"messages": [USER, ANSWER]}], "messages"),
        ([{"messages": []}, {"messages": [USER, ANSWER]}], "messages"),
        ([{}, {"text": "a"}], "text"),
        # A row that lacks its instruction is no row of input and output.
        (
            [{"instruction": None, "input": "b", "output": "c"}, {"instruction": "a", "input": "b", "output": "c"}],
            "instruction",
        ),
        # Where a column is empty everywhere, it says nothing.
        ([{"messages": None, "text": "a"}, {"messages": None, "text": "b"}], "text"),
        ([{"prompt": "", "completion": ""}], "prompt-completion"),
    ],
)
def test_the_first_usable_row_shows_the_format(rows: list[dict[str, Any]], name: str) -> None:
    assert shaped(*rows).format == name


@pytest.mark.parametrize(
    ("first", "later", "words"),
    [
        (
            {"messages": [USER, ANSWER]},
            {"text": "a"},
            "is of another shape: text: its columns are text, the source is messages",
        ),
        ({"messages": [USER, ANSWER]}, {"messages": [{"from": "human", "value": "a"}]}, "another shape: sharegpt"),
        ({"instruction": "a", "output": "b"}, {"question": "a", "answer": "b"}, "another shape: input-output"),
        ({"text": "a"}, {"text": None, "prompt": "a", "completion": "b"}, "another shape: prompt-completion"),
        ({"instruction": "a", "output": "b"}, {"instruction": "a"}, "has nothing in 'output'"),
        ({"text": "a"}, {"txet": "b"}, "has nothing in 'text': its columns are txet"),
    ],
)
def test_a_later_row_of_another_shape_is_a_bad_row(first: dict[str, Any], later: dict[str, Any], words: str) -> None:
    shape = shaped(first, later)
    shape.convert(first)
    with pytest.raises(BadRow) as caught:
        shape.convert(later)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        {"problem": "a", "solution": "b", "answer": "4"},
        {"question": "a", "input": "b", "answer": "c"},
        {"instruction": "a", "response": "b", "answer": "c"},
    ],
)
def test_which_of_two_columns_is_meant_is_not_guessed(raw: dict[str, Any]) -> None:
    with pytest.raises(BadRow, match="has several columns that could be its") as caught:
        converted(raw)
    assert caught.value.do
    assert "[data] columns = { " in caught.value.do


def test_which_of_two_columns_is_meant_the_job_says() -> None:
    raw = {"problem": "a", "solution": "b", "answer": "4"}
    assert spoken(converted(raw, columns={"output": "solution"})[0]) == [("user", "a"), ("assistant", "b")]
    raw = {"question": "a", "input": "b", "answer": "c"}
    (row,) = converted(raw, columns={"instruction": "question", "output": "answer"})
    assert spoken(row) == [("user", "a\n\nb"), ("assistant", "c")]
    # What the job calls the instruction is not the input once more.
    (row,) = converted({"input": "a", "output": "b"}, columns={"instruction": "input"})
    assert spoken(row) == [("user", "a"), ("assistant", "b")]


def test_forges_own_name_of_a_column_comes_before_others() -> None:
    shape = shaped(raw := {"instruction": "a", "input": "", "output": "b", "answer": "A", "text": "t"})
    assert spoken(shape.convert(raw)) == [("user", "a"), ("assistant", "b")]
    assert shape.ignored == ("answer", "text")


@pytest.mark.parametrize("history", [[["a", "b"], ["c", "d"]], '[["a", "b"], ["c", "d"]]'])
def test_a_history_comes_before_the_question_and_its_answers_are_learnt(history: Any) -> None:
    (row,) = converted({"system": "s", "instruction": "e", "input": "f", "output": "g", "history": history})
    assert isinstance(row, Conversation)
    assert [text for _, text in spoken(row)] == ["s", "a", "b", "c", "d", "e\n\nf", "g"]
    assert (row.turns, row.start) == (True, 6)
    (row,) = converted({"instruction": "e", "output": "g", "history": []})
    assert isinstance(row, Conversation)
    assert not row.turns


@pytest.mark.parametrize("history", [[["a"]], [["a", ""]], "x", {"a": "b"}, [["a", 1]]])
def test_a_history_that_is_none_is_refused(history: Any) -> None:
    with pytest.raises(BadRow, match="history"):
        converted({"instruction": "e", "output": "g", "history": history})


def test_a_system_column_goes_before_the_messages_once() -> None:
    assert spoken(converted({"system": "s", "messages": [USER, ANSWER]})[0])[0] == ("system", "s")
    own = {"role": "system", "content": "s"}
    assert [role for role, _ in spoken(converted({"system": "s", "messages": [own, USER, ANSWER]})[0])] == [
        "system",
        "user",
        "assistant",
    ]
    with pytest.raises(BadRow, match="has two system messages: one in 'system', one in its messages"):
        converted({"system": "t", "messages": [own, USER, ANSWER]})


def test_a_conversation_may_begin_with_an_answer() -> None:
    assert len(spoken(converted({"messages": [ANSWER, USER, ANSWER]})[0])) == 3


def test_a_prompt_and_an_answer_may_be_written_in_different_ways() -> None:
    for raw in (
        {"prompt": "Hi", "completion": [ANSWER]},
        {"prompt": [USER], "completion": "Hello"},
        {"prompt": USER, "completion": ANSWER},
        {"prompt": json.dumps([USER]), "completion": json.dumps([ANSWER])},
    ):
        assert spoken(converted(raw)[0]) == [("user", "Hi"), ("assistant", "Hello")]
    # A text that looks like a list of something else is a text.
    assert converted({"prompt": "[INST] a", "completion": "[1, 2]"}) == [Completion("[INST] a", "[1, 2]")]
