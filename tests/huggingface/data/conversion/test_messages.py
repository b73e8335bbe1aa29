"""Messages as data sets write them: speakers, tools and their calls, reasoning, and what is in the loss."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge.errors import DataError
from forge_huggingface.rows import CALL_TEXT, BadRow, Conversation, Pair, Prompt
from support.shapes import converted, says, shaped, spoken

ASKED, ANSWER = says(user="Weather?"), says(assistant="20 degrees.")
SPOKEN = '{"name": "weather", "arguments": {"city": "Paris"}}'
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
SCHEMA = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}


def conversation(raw: dict[str, Any], *, filled: bool = False, **keys: Any) -> Conversation:
    row = shaped(raw, **keys).convert(raw, filled=filled)
    assert isinstance(row, Conversation)
    return row


def bad(raw: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(BadRow) as caught:
        converted(raw, **keys)
    return str(caught.value)


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("human", "user"),
        ("Human", "user"),
        ("prompter", "user"),
        ("gpt", "assistant"),
        ("chatbot", "assistant"),
        ("developer", "developer"),
        ("system_prompt", "system"),
        ("observation", "tool"),
        ("function_response", "tool"),
        ("tool_response", "tool"),
        ("tool_result", "tool"),
        ("function", "tool"),
        ("ipython", "tool"),
    ],
)
def test_a_speaker_has_many_names(speaker: str, role: str) -> None:
    row = conversation({"messages": [{"role": speaker, "content": "x"}, *ASKED, *ANSWER]})
    assert row.messages[0] == {"role": role, "content": "x"}


def test_the_job_names_speakers_and_keys_that_forge_does_not_know() -> None:
    raw = {"messages": [{"speaker": "Customer", "text": "Hi", "content": "Hi"}, {"speaker": "agent", "text": "Yes?"}]}
    keys = {"role": "speaker", "content": "text"}
    roles = {"Customer": "user", "agent": "assistant"}
    assert spoken(conversation(raw, roles=roles, message_keys=keys)) == [("user", "Hi"), ("assistant", "Yes?")]
    assert "unknown role 'Customer': message 1" in bad(raw, message_keys=keys)
    raw = {"messages": [{"from": "tool", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}]}
    assert spoken(conversation(raw, roles={"tool": "user"}))[0] == ("user", "Hi")


@pytest.mark.parametrize("keys", [{"roles": {"a": "user"}}, {"message_keys": {"role": "a"}}])
def test_keys_about_messages_are_refused_where_there_are_none(keys: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"would do nothing: x\.jsonl has rows of the format instruction"):
        shaped({"instruction": "a", "output": "b"}, **keys)


@pytest.mark.parametrize(
    "calls",
    [
        [CALL],
        CALL,
        [{"name": "weather", "arguments": {"city": "Paris"}}],
        [{"name": "weather", "parameters": {"city": "Paris"}}],
        [{"function": {"name": "weather", "arguments": '{"city": "Paris"}'}}],
        SPOKEN,
        f"[{SPOKEN}]",
    ],
)
def test_calls_have_one_form_however_they_are_kept(calls: Any) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    row = conversation({"messages": [*ASKED, turn, {"role": "tool", "content": "20"}, *ANSWER]})
    assert row.messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_the_id_of_a_call_and_the_name_of_a_function_stay() -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": ""}}
    result = {"role": "function", "name": "weather", "content": {"degrees": 20, "wind": None}}
    row = conversation({"messages": [*ASKED, old, result, *ANSWER], "functions": [SCHEMA]})
    assert row.messages[1]["tool_calls"] == [{"type": "function", "function": {"name": "weather", "arguments": {}}}]
    assert row.messages[2] == {"role": "tool", "name": "weather", "content": '{"degrees": 20, "wind": null}'}
    assert row.tools == ({"type": "function", "function": SCHEMA},)
    turn = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "1"}]}
    row = conversation({"messages": [*ASKED, turn, {"role": "tool", "content": "20", "tool_call_id": "1"}, *ANSWER]})
    assert row.messages[1]["tool_calls"] == [{**CALL, "id": "1"}]
    assert row.messages[2]["tool_call_id"] == "1"


@pytest.mark.parametrize("role", ["function_call", "tool_call", "tool_calls"])
@pytest.mark.parametrize(
    ("text", "count"),
    [
        (SPOKEN, 1),
        (f"[{SPOKEN}, {SPOKEN}]", 2),
        (f"{SPOKEN}\n{SPOKEN}", 2),
        (f"<tool_call>\n{SPOKEN}\n</tool_call>\n<tool_call>\n{SPOKEN}\n</tool_call>", 2),
        (f"<functioncall> {SPOKEN}", 1),
        ("""<functioncall> {"name": "weather", "arguments": '{"city": "Paris"}'}""", 1),
        ({"name": "weather", "arguments": {"city": "Paris"}}, 1),
    ],
)
def test_a_turn_that_is_a_call_becomes_an_assistants(role: str, text: Any, count: int) -> None:
    raw = {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": role, "value": text},
            {"from": "observation", "value": "20"},
            {"from": "gpt", "value": "20 degrees."},
        ],
        "tools": f"[{SPOKEN}]",
    }
    row = conversation(raw)
    said = {CALL_TEXT: text} if isinstance(text, str) else {}
    assert row.messages == (
        *ASKED,
        {"role": "assistant", "content": "", "tool_calls": [CALL] * count, **said},
        {"role": "tool", "content": "20"},
        *ANSWER,
    )


def test_calls_one_after_the_other_are_one_turn_with_the_text_before_them() -> None:
    call = {"role": "tool_call", "content": SPOKEN}
    result = {"role": "tool_response", "content": "20"}
    raw = {"messages": [*ASKED, *says(assistant="Wait."), call, call, result, result, *ANSWER]}
    row = conversation(raw)
    assert [message["role"] for message in row.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    calls = {"tool_calls": [CALL, CALL], CALL_TEXT: f"{SPOKEN}\n{SPOKEN}"}
    assert row.messages[1] == {"role": "assistant", "content": "Wait.", **calls}
    # Where only one of the two is to be learnt, they cannot be one turn.
    row = conversation({"messages": [*ASKED, {**says(assistant="Wait.")[0], "weight": 0}, call, result, *ANSWER]})
    assert row.learned == (None, False, None, None, None)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "function_call", "content": "weather(Paris)"}, "has a tool call that is not JSON: message 2"),
        ({"role": "function_call", "content": " "}, "has no tool call where one should be"),
        ({"role": "function_call", "content": "[3]"}, "has a tool call that is not an object"),
        ({"role": "function_call", "content": '{"arguments": {}}'}, "has a tool call without a name"),
        (
            {"role": "function_call", "content": SPOKEN, "tool_calls": [CALL]},
            "has a call as text and as tool_calls: message 2",
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": "Paris"}]},
            "has a tool call whose arguments are not JSON: message 2, weather",
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": "[1]"}]},
            "has a tool call whose arguments are not an object: message 2, weather: list",
        ),
        (
            {"role": "assistant", "tool_calls": [CALL], "function_call": {"name": "weather"}},
            "has a message with tool_calls and function_call: message 2",
        ),
    ],
)
def test_a_call_that_cannot_be_read_is_a_bad_row(turn: dict[str, Any], words: str) -> None:
    assert words in bad({"messages": [*ASKED, turn, *ANSWER]})


@pytest.mark.parametrize(
    "tools",
    [
        [SCHEMA],
        SCHEMA,
        [{"type": "function", "function": SCHEMA}],
        [{"type": "function", **SCHEMA}],
        ['{"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}'],
        '[{"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}]',
    ],
)
def test_tools_have_one_form_however_they_are_kept(tools: Any) -> None:
    row = conversation({"messages": [*ASKED, *ANSWER], "tools": tools})
    assert row.tools == ({"type": "function", "function": SCHEMA},)


def test_tools_that_are_none_are_refused() -> None:
    rows = {"messages": [*ASKED, *ANSWER]}
    assert "has tools that are not JSON" in bad({**rows, "tools": "weather"})
    assert "has tools that are not a list: they are a int" in bad({**rows, "tools": 3})
    assert "has a tool that is not an object" in bad({**rows, "tools": [3]})
    assert conversation({**rows, "tools": "[]"}).tools is None


def test_what_arrow_fills_in_is_taken_out_and_what_a_file_says_stays() -> None:
    tool = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}, "a": None}}}
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"name": "weather", "arguments": {"city": "P", "a": None}}],
    }
    text = {"role": "assistant", "content": None, "tool_calls": [{"name": "weather", "arguments": '{"a": null}'}]}
    raw = {"messages": [{**ASKED[0], "tool_calls": None}, turn, text], "tools": [tool]}

    def parts(*, filled: bool) -> list[Any]:
        row = conversation(raw, filled=filled)
        assert row.tools
        called = [message["tool_calls"][0]["function"]["arguments"] for message in row.messages[1:]]
        return [*called, row.tools[0]["function"]["parameters"]["properties"]]

    assert parts(filled=True) == [{"city": "P"}, {"a": None}, {"city": {"type": "string"}}]
    assert parts(filled=False) == [{"city": "P", "a": None}, {"a": None}, {"city": {"type": "string"}, "a": None}]


def test_columns_for_reward_functions_are_left_as_arrow_has_them() -> None:
    raw = {"prompt": [{**ASKED[0], "name": None}], "wanted": {"a": None, "b": 1}, "nothing": None}
    row = shaped(raw, method="grpo").convert(raw, filled=True)
    assert row == Prompt(tuple(ASKED), {"wanted": {"a": None, "b": 1}, "nothing": None})


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "thought"])
def test_reasoning_has_one_name_and_may_stand_alone(key: str) -> None:
    row = conversation({"messages": [*ASKED, {"role": "assistant", "content": "", key: "Hm."}, *ANSWER]})
    assert row.messages[1] == {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    row = conversation({"messages": [*ASKED, {**ANSWER[0], key: " "}]})
    assert row.messages[1] == ANSWER[0]


def test_two_reasonings_are_refused_and_other_keys_stay() -> None:
    turn = {**ANSWER[0], "thinking": "a", "reasoning": "b"}
    assert "has a message with two different reasonings: message 2" in bad({"messages": [*ASKED, turn]})
    row = conversation({"messages": [{**ASKED[0], "name": "Ann", "mood": None}, {**ANSWER[0], "think": True}]})
    assert row.messages == ({**ASKED[0], "name": "Ann"}, {**ANSWER[0], "think": True})
    turn = {"from": "gpt", "value": "a", "content": "b"}
    raw = {"conversations": [{"from": "human", "value": "a"}, turn]}
    assert "has a message with 'value' and 'content': message 2" in bad(raw)


@pytest.mark.parametrize(
    ("flag", "learned"),
    [
        ({"weight": 0}, False),
        ({"weight": 1.0}, True),
        ({"train": False}, False),
        ({"training": True}, True),
        ({"trainable": 0}, False),
        ({"loss": False}, False),
        ({"loss_mask": 1}, True),
        ({"masked": True}, False),
        ({"masked": False, "weight": 1}, True),
    ],
)
def test_a_flag_of_a_message_is_taken_off_and_kept_beside_it(flag: dict[str, Any], learned: bool) -> None:
    raw = {"messages": [*ASKED, {**ANSWER[0], **flag}, *ASKED, {**ANSWER[0], "weight": None}], "system": "s"}
    row = conversation(raw)
    assert row.learned == (None, None, learned, None, None)
    assert row.messages == (*says(system="s"), *ASKED, *ANSWER, *ASKED, *ANSWER)


def test_without_flags_there_are_none() -> None:
    assert conversation({"messages": [*ASKED, *ANSWER]}).learned == ()
    row = conversation({"prompt": [{**ASKED[0], "weight": 1}], "completion": [{**ANSWER[0], "weight": 0}]})
    assert row.learned == (True, False)
    (pair,) = converted(
        {"chosen": [*ASKED, {**ANSWER[0], "train": True}], "rejected": [*ASKED, *says(assistant="?")]}, method="dpo"
    )
    assert isinstance(pair, Pair)
    assert isinstance(pair.chosen, Conversation)
    assert isinstance(pair.rejected, Conversation)
    assert (pair.chosen.learned, pair.rejected.learned) == ((None, True), ())


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ({"weight": 0.5}, "has a message whose 'weight' is 0.5: message 2; only 0 and 1"),
        ({"train": "yes"}, "has a message whose 'train' is 'yes'"),
        ({"train": True, "masked": True}, "has a message whose 'train' and 'masked' contradict each other: message 2"),
    ],
)
def test_a_flag_that_says_neither_yes_nor_no_is_refused(flag: dict[str, Any], words: str) -> None:
    assert words in bad({"messages": [*ASKED, {**ANSWER[0], **flag}]})


@pytest.mark.parametrize("none", ["[]", "null", "", " [ ]\n", "{}", [], None])
def test_a_text_may_say_that_there_are_no_calls(none: Any) -> None:
    for key in ("tool_calls", "function_call"):
        assert conversation({"messages": [*ASKED, {**ANSWER[0], key: none}]}).messages == (*ASKED, *ANSWER)
    assert "has an empty assistant turn" in bad({"messages": [*ASKED, {"role": "assistant", "tool_calls": none}]})


def test_each_of_several_quoted_calls_is_read() -> None:
    calls = (
        """{"name":"get","arguments":'{"x": "it's }"}'}""",
        """{"name":"put","arguments":'{"y": 2}'}""",
        """{"name":"z","arguments":''}""",
    )
    text = "\n".join(calls)
    row = conversation({"messages": [*ASKED, {"role": "function_call", "content": text}, *ANSWER]})
    assert [call["function"] for call in row.messages[1]["tool_calls"]] == [
        {"name": "get", "arguments": {"x": "it's }"}},
        {"name": "put", "arguments": {"y": 2}},
        {"name": "z", "arguments": {}},
    ]
    turn = {"role": "function_call", "content": """{"name":"get","arguments":'{x}'}"""}
    assert "has a tool call whose arguments are not JSON: message 2, get" in bad({"messages": [*ASKED, turn]})


TWICE = '{"city": "Paris", "city": "Rome"}'


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": [*ASKED, {"role": "assistant", "tool_calls": [{"name": "w", "arguments": TWICE}]}]},
        {"messages": [*ASKED, {"role": "assistant", "tool_calls": f'[{{"name": "w", "arguments": {TWICE}}}]'}]},
        {"messages": [*ASKED, {"role": "function_call", "content": f'{{"name": "w", "arguments": {TWICE}}}'}]},
        {"messages": [*ASKED, {"role": "function_call", "content": f"""{{"name": "w", "arguments": '{TWICE}'}}"""}]},
        {"messages": [*ASKED, *ANSWER], "tools": f'[{{"name": "w", "parameters": {TWICE}}}]'},
        {"messages": '[{"role": "user", "content": "a", "city": 1, "city": 2}, {"role": "assistant", "content": "b"}]'},
        {"prompt": '[{"role": "user", "content": "a", "city": 1, "city": 2}]', "completion": "b"},
        {"instruction": "a", "output": "b", "history": '[{"from": "gpt", "value": "b", "city": 1, "city": 2}]'},
    ],
)
def test_a_key_that_stands_twice_in_json_text_is_a_bad_row(raw: dict[str, Any]) -> None:
    assert "has the key 'city' twice" in bad(raw)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
def test_a_number_that_json_cannot_write_is_no_part_of_tools_and_calls(number: str) -> None:
    arguments = f'{{"x": [1.5, {number}]}}'
    for given in (arguments, json.loads(arguments)):
        turn = {"role": "assistant", "tool_calls": [{"name": "w", "arguments": given}]}
        words = "has a tool call that holds a number that JSON cannot write: message 2, w"
        assert words in bad({"messages": [*ASKED, turn]})
    tools = f'[{{"name": "w", "parameters": {arguments}}}]'
    for given in (tools, json.loads(tools)):
        assert "a tool that holds a number that JSON" in bad({"messages": [*ASKED, *ANSWER], "tools": given})
    row = conversation({"messages": [*ASKED, {**ANSWER[0], "score": float(number)}]})
    assert repr(row.messages[1]["score"]) == repr(float(number))
