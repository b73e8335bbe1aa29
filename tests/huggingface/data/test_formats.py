"""Formats: told by columns, reported, and strict about rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge.errors import DataError
from forge_huggingface.data.formats import detect
from forge_huggingface.rows import AlienRow, BadRow, Completion, Conversation, Row, Text

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def convert(raw: dict[str, Any], *, columns: dict[str, str] | None = None, format: str = "auto") -> tuple[str, Row]:  # noqa: A002
    shape = detect(format, columns or {}, raw, "x.jsonl")
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
    ],
)
def test_a_conversation_is_the_same_in_every_format(raw: dict[str, Any], name: str) -> None:
    format, row = convert(raw)  # noqa: A001
    assert format == name
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
    shape = detect("auto", {"messages": "dialog"}, raw, "x")
    assert (shape.format, shape.columns, shape.ignored) == ("messages", {"messages": "dialog"}, ("text", "messages"))
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
        "tools": '[{"a": 1}]',
    }
    _, row = convert(raw)
    assert isinstance(row, Conversation)
    assert row.tools == ({"a": 1},)
    assert row.messages[0] == USER
    assert row.messages[1] == {"role": "assistant", "content": "", "tool_calls": [{"name": "clock"}]}


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
    shape = detect("auto", {}, {"messages": [USER, ANSWER]}, "x")
    with pytest.raises(BadRow) as caught:
        shape.convert({"messages": messages})
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, "", "  "])
def test_a_text_must_be_one(value: Any) -> None:
    shape = detect("auto", {}, {"prompt": "a", "completion": "b"}, "x")
    with pytest.raises(BadRow):
        shape.convert({"prompt": "a", "completion": value})
