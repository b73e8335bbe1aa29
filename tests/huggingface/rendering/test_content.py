"""What a row holds is in its text, or the row is bad: every kind of content, through templates that drop it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import Template
from forge_huggingface.rows import CALL_TEXT, BadRow, Conversation, Rendered
from support.templates import real, tokenizer_for
from support.tiny import CHATML

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
CALLING = [
    {"role": "user", "content": "Weather in Paris?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": '{"degrees": "twenty"}'},
    {"role": "assistant", "content": "It is twenty degrees."},
]
ASKED = {"role": "user", "content": "2+2?"}


def made(template: str, **settings: Any) -> Renderer:
    """A renderer with a real template by its name in TRL, or with the text of one."""
    text = template if "{" in template else real(template)
    return Renderer(tokenizer_for(text), Template(template[:12], text, "model"), **settings)


def rendered(renderer: Renderer, *messages: dict[str, Any], tools: Any = None, **more: Any) -> Rendered | BadRow:
    (result,) = renderer.render([Conversation(messages, len(messages) - 1, True, tools, **more)])
    return result


def texts(renderer: Renderer, result: Rendered | BadRow) -> tuple[str, str]:
    """A row's text, and what of it is in the loss."""
    assert isinstance(result, Rendered), result
    decode = renderer.tokenizer.decode
    return decode(result.input_ids), decode([label for label in result.labels if label != -100])


@pytest.mark.parametrize(
    ("messages", "tools", "gone"),
    [
        (CALLING, [WEATHER], "the tools"),
        (CALLING, None, "the tool call ('weather') of message 2"),
        (
            [ASKED, {"role": "assistant", "content": "4", "reasoning_content": "add"}],
            None,
            "the reasoning of message 2",
        ),
    ],
)
def test_what_a_plain_template_does_not_write_is_named(messages: list[Any], tools: Any, gone: str) -> None:
    result = rendered(made(CHATML), *messages, tools=tools)
    assert isinstance(result, BadRow)
    assert result.what == f"loses {gone} in the chat template {CHATML[:12]}"
    assert result.do == 'set chat_template = "chatml", which writes it, or set on_bad_row = "drop"'


@pytest.mark.parametrize(
    ("template", "gone"),
    [
        (CHATML.replace("{% for message in messages %}", "{% for message in messages[1:] %}"), "the text of message 1"),
        (CHATML.replace("+ message['content']", "+ message['content'][:3]"), "the text of message 1"),
        (
            CHATML.replace("message in messages", "message in messages if loop is defined or true")
            .replace("{{ '<|im_start|>'", "{% if message.role != 'system' %}{{ '<|im_start|>'")
            .replace("'\n' }}{% endfor", "'\n' }}{% endif %}{% endfor"),
            None,
        ),
    ],
    ids=["first turn", "cut", "no system turn"],
)
def test_a_text_that_is_not_written_is_named(template: str, gone: str | None) -> None:
    turns = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}]
    if gone is None:
        assert isinstance(rendered(made(template), *turns), Rendered)
        turns = [{"role": "system", "content": "Be brief."}, *turns]
    result = rendered(made(template), *turns)
    assert isinstance(result, BadRow)
    assert f"loses {gone or 'the text of message 1'}" in result.what


def test_a_short_answer_is_not_found_in_another_turn() -> None:
    only_first = CHATML.replace("message in messages", "message in messages[:-1]")
    result = rendered(made(only_first), {"role": "user", "content": "Say a."}, {"role": "assistant", "content": "a"})
    assert isinstance(result, BadRow)
    assert "loses the text of message 2" in result.what


@pytest.mark.parametrize(
    "template", ["qwen3", "qwen2_5", "llama3_1", "glm4moe", "deepseekv3", "gptoss", "lfm2_2_5", "nemotron_3_nano"]
)
def test_templates_that_know_tools_get_calls_as_they_want_them(template: str) -> None:
    renderer = made(template)
    result = rendered(renderer, *CALLING, tools=None if template == "deepseekv3" else [WEATHER])
    text, learned = texts(renderer, result)
    assert "Paris" in learned
    assert "twenty" in text
    assert '\\"city' not in text  # written once, not as JSON within JSON
    assert "{'city'" not in text


@pytest.mark.parametrize("template", ["qwen3", "qwen3_6", "gptoss", "lfm2_2_5", "glm4moe"])
def test_earlier_reasoning_is_told_and_the_last_is_learned(template: str) -> None:
    renderer = made(template)
    first = {"role": "assistant", "content": "4", "reasoning_content": "add two"}
    second = {"role": "assistant", "content": "6", "reasoning_content": "add three"}
    result = rendered(renderer, ASKED, first, {"role": "user", "content": "3+3?"}, second)
    text, learned = texts(renderer, result)
    assert "add two" not in text
    assert "add three" in learned
    assert isinstance(result, Rendered)
    assert any("leaves the reasoning of earlier answers out" in note for note in result.notes)


@pytest.mark.parametrize("inline", [False, True])
def test_earlier_reasoning_can_be_kept(inline: bool) -> None:
    text = real("qwen3")
    template = Template("qwen3", text, "model", keep_reasoning=True)
    renderer = Renderer(tokenizer_for(text), template)

    def answer(thought: str, said: str) -> dict[str, Any]:
        if inline:
            return {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{said}"}
        return {"role": "assistant", "content": said, "reasoning_content": thought}

    turns = [ASKED, answer("add two", "4"), {"role": "user", "content": "3+3?"}, answer("add three", "6")]
    result = rendered(renderer, *turns)
    _, learned = texts(renderer, result)
    assert isinstance(result, Rendered)
    assert not result.notes
    assert learned == ("<think>\nadd two\n</think>\n\n4<|im_end|>\n<think>\nadd three\n</think>\n\n6<|im_end|>\n</s>")


def test_an_empty_think_block_can_be_left_out_of_the_loss() -> None:
    turns = (ASKED, {"role": "assistant", "content": "4"})
    renderer = made("qwen3")
    assert texts(renderer, rendered(renderer, *turns))[1] == "<think>\n\n</think>\n\n4<|im_end|>\n</s>"
    renderer = made("qwen3", mask_empty_reasoning=True)
    assert texts(renderer, rendered(renderer, *turns))[1] == "4<|im_end|>\n</s>"
    renderer = made("qwen3", mask_empty_reasoning=True, train_on="completion")
    assert texts(renderer, rendered(renderer, *turns))[1] == "4<|im_end|>\n</s>"


def test_keys_that_nothing_reads_are_told() -> None:
    renderer = made(CHATML)
    result = rendered(renderer, {**ASKED, "mood": "curious"}, {"role": "assistant", "content": "4", "name": "Ada"})
    assert isinstance(result, Rendered)
    assert result.notes == (
        "messages have the key 'mood', which nothing reads",
        "messages have the key 'name', which nothing reads",
    )
    reading = made(CHATML.replace("message['role'] +", "message['role'] + message.get('mood', '') +"))
    result = rendered(reading, {**ASKED, "mood": "curious"}, {"role": "assistant", "content": "4"})
    assert isinstance(result, Rendered)
    assert not result.notes


def test_a_head_that_nobody_asked_for_is_no_answer() -> None:
    always = (
        real("llama3")
        .replace("{% if add_generation_prompt %}", "{% if true %}")
        .replace("{%- if add_generation_prompt %}", "{%- if true %}")
    )
    renderer = made(always)
    turns = [ASKED, {"role": "assistant", "content": "four"}, {"role": "user", "content": "3+3?"}]
    result = rendered(renderer, *turns, {"role": "assistant", "content": "six"})
    assert renderer.template is not None
    assert renderer.template.traits.unasked
    assert texts(renderer, result)[1] == "four<|eot_id|>six<|eot_id|></s>"


FLAGS = [
    ("assistant", (None, False, None, True), "Blue.<|im_end|></s>"),
    ("assistant", (None, False, None, None), "Blue.<|im_end|></s>"),
    ("assistant", (None, None, None, False), "Seven.<|im_end|>"),
    ("assistant", (True, None, None, None), "Name a colour.<|im_end|>Seven.<|im_end|>Blue.<|im_end|></s>"),
    ("flagged", (None, True, None, None), "Seven.<|im_end|>"),
    ("flagged", (None, None, None, True), "Blue.<|im_end|></s>"),
    ("completion", (None, False, None, True), "Blue.<|im_end|></s>"),
]


@pytest.mark.parametrize(("train_on", "flags", "learned"), FLAGS)
@pytest.mark.parametrize("marks", [False, True])
def test_flags_of_messages_decide_what_is_in_the_loss(
    train_on: Any, flags: tuple[bool | None, ...], learned: str, marks: bool
) -> None:
    text = CHATML
    if marks:
        text = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
            "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
    turns = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": "Try again."},
        {"role": "assistant", "content": "Blue."},
    ]
    renderer = made(text, train_on=train_on)
    assert texts(renderer, rendered(renderer, *turns, learned=flags))[1].replace("\n", "") == learned


def test_all_but_what_a_flag_leaves_out() -> None:
    renderer = made(CHATML, train_on="all")
    turns = [ASKED, {"role": "assistant", "content": "five"}, {"role": "user", "content": "No."}]
    result = rendered(renderer, *turns, {"role": "assistant", "content": "four"}, learned=(None, False, None, None))
    learned = texts(renderer, result)[1]
    assert "five" not in learned
    assert "2+2?" in learned
    assert learned.endswith("four<|im_end|>\n</s>")


@pytest.mark.parametrize("train_on", ["assistant", "completion", "flagged"])
def test_a_row_whose_flags_leave_nothing_is_bad(train_on: Any) -> None:
    result = rendered(
        made(CHATML, train_on=train_on), ASKED, {"role": "assistant", "content": "4"}, learned=(None, False)
    )
    assert isinstance(result, BadRow)
    assert "has nothing to train on" in result.what


def test_json_in_a_text_is_found_as_the_template_writes_it() -> None:
    template = CHATML.replace("message['content']", "(message['content'] | tojson)")
    turns = ({"role": "user", "content": 'Say "ä\n" twice.'}, {"role": "assistant", "content": 'ä "and" ä'})
    assert isinstance(rendered(made(template), *turns), Rendered)
    assert json.dumps("ä") != '"ä"'  # which is why both forms are looked for


MARKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{% if loop.last and m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_kept_reasoning_moves_the_spans_that_a_template_marks() -> None:
    template = Template("marking", MARKING, "model", keep_reasoning=True)
    renderer = Renderer(tokenizer_for(MARKING), template)
    turns = [
        ASKED,
        {"role": "assistant", "content": "4", "reasoning_content": "add two"},
        {"role": "user", "content": "3+3?"},
        {"role": "assistant", "content": "6", "reasoning_content": "add three"},
    ]
    _, learned = texts(renderer, rendered(renderer, *turns))
    assert learned == ("<think>\nadd two\n</think>\n\n4<|im_end|><think>\nadd three\n</think>\n\n6<|im_end|></s>")


def test_an_empty_think_block_stays_out_beside_flags_too() -> None:
    renderer = made("qwen3", mask_empty_reasoning=True, train_on="completion")
    row = Conversation((ASKED, {"role": "assistant", "content": "4"}), 1, turns=False, learned=(None, True))
    (result,) = renderer.render([row])
    assert texts(renderer, result)[1] == "4<|im_end|>\n</s>"


def test_a_flag_wins_over_completion_in_both_ways() -> None:
    renderer = made(CHATML, train_on="completion")
    turns = [ASKED, {"role": "assistant", "content": "four"}, {"role": "user", "content": "3+3?"}]
    result = rendered(renderer, *turns, {"role": "assistant", "content": "six"}, learned=(None, True, None, None))
    assert texts(renderer, result)[1].replace("\n", "") == "four<|im_end|>six<|im_end|></s>"


def test_a_second_call_that_is_not_written_is_named() -> None:
    first_only = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.tool_calls %}"
        "{{ m.tool_calls[0] | tojson }}{% endif %}</s>{% endfor %}"
    )
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": a, "b": a + 1}}} for a in (1, 3)]
    turns = (ASKED, {"role": "assistant", "content": "", "tool_calls": calls})
    assert isinstance(rendered(made(first_only), turns[0], {**turns[1], "tool_calls": calls[:1]}), Rendered)
    result = rendered(made(first_only), *turns)
    assert isinstance(result, BadRow)
    assert "loses the tool call" in result.what


def test_a_key_that_a_template_has_only_as_a_word_is_told() -> None:
    text = real("qwen3")
    renderer = Renderer(tokenizer_for(text), Template("qwen3", text, "model"))
    system = {"role": "system", "content": "Be brief.", "add_generation_prompt": True}
    result = rendered(renderer, system, ASKED, {"role": "assistant", "content": "4"})
    assert isinstance(result, Rendered)
    assert result.notes == ("messages have the key 'add_generation_prompt', which nothing reads",)


def test_many_turns_with_forgotten_reasoning_are_looked_at_once() -> None:
    renderer = made("qwen3")
    assert renderer.template is not None
    turns: list[dict[str, Any]] = []
    for number in range(8):
        turns += [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": f"Answer {number}.", "reasoning_content": f"Thought {number}."},
        ]
    result = rendered(renderer, *turns)
    text, learned = texts(renderer, result)
    assert "Thought 7." in learned
    assert "Thought 6." not in text
    assert isinstance(result, Rendered)
    assert len(result.notes) == 1


def test_reasoning_in_the_last_block_is_learned_where_an_earlier_answer_is_written_otherwise() -> None:
    renderer = made("qwen3")
    turns = (ASKED, {"role": "assistant", "content": "one"})
    result = rendered(renderer, *turns, {"role": "assistant", "content": "text", "reasoning_content": "REASON"})
    assert "<think>\nREASON\n</think>\n\ntext<|im_end|>" in texts(renderer, result)[1]


@pytest.mark.parametrize("keep", [False, True])
def test_reasoning_before_a_call_is_learned_and_written_as_in_a_last_turn(keep: bool) -> None:
    text = real("qwen3")
    renderer = Renderer(tokenizer_for(text), Template("qwen3", text, "model", keep_reasoning=keep))
    turns = [
        CALLING[0],
        {**CALLING[1], "reasoning_content": "R1"},
        CALLING[2],
        {**CALLING[3], "reasoning_content": "R3"},
    ]
    last = "<think>\nR1\n</think>\n\n<tool_call>"
    learned = texts(renderer, rendered(renderer, *turns))[1]
    assert learned.startswith(last)
    assert "<think>\nR3\n</think>\n\nIt is twenty degrees.<|im_end|>" in learned
    more = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "end"}]
    learned = texts(renderer, rendered(renderer, *turns, *more))[1]
    if keep:
        assert learned.startswith(last)
        assert "<think>\nR3\n</think>\n\nIt is twenty degrees.<|im_end|>" in learned
    else:
        assert "R1" not in learned


def test_a_flagged_question_ends_before_the_head_of_the_answer() -> None:
    renderer = made("deepseekv3")
    turns = ({"role": "user", "content": "q one"}, {"role": "assistant", "content": "x"})
    result = rendered(renderer, *turns, learned=(True, False))
    assert texts(renderer, result)[1].strip() == "q one"


@pytest.mark.parametrize("template", ["llama3", "phi3"])
def test_calls_whose_words_come_later_are_missed_all_the_same(template: str) -> None:
    turns = [
        {"role": "user", "content": "Is it warm?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"weather": "sunny", "city": "Paris"}'},
        {"role": "assistant", "content": "Sunny."},
    ]
    result = rendered(made(template), *turns)
    assert isinstance(result, BadRow)
    assert "loses the tool call" in result.what or "loses the text of message 3" in result.what


def test_tools_whose_words_are_in_a_turn_are_missed_all_the_same() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "city", "parameters": {}}}
    turns = ({"role": "user", "content": "The weather in my city?"}, {"role": "assistant", "content": "Fine."})
    result = rendered(made(CHATML), *turns, tools=(tool,))
    assert isinstance(result, BadRow)
    assert "loses the tools" in result.what


def test_a_completion_of_several_turns_teaches_the_answers_alone() -> None:
    renderer = made("qwen3")
    row = Conversation(tuple(CALLING), 1, turns=False, tools=(WEATHER,))
    (result,) = renderer.render([row])
    learned = texts(renderer, result)[1]
    assert "Paris" in learned
    assert "degrees." in learned
    assert 'twenty"' not in learned
    assert "user" not in learned


def test_an_answer_without_an_end_within_a_conversation_is_told() -> None:
    result = rendered(made("deepseekv3"), *CALLING)
    assert isinstance(result, Rendered)
    assert any("ends an answer within the conversation with no token" in note for note in result.notes)
    result = rendered(made("qwen2_5"), *CALLING, tools=(WEATHER,))
    assert isinstance(result, Rendered)
    assert not result.notes


def test_reasoning_without_an_opening_tag_is_known_too() -> None:
    turns = [ASKED, {"role": "assistant", "content": "add two</think>4"}]
    result = rendered(made("qwen3"), *turns, {"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"})
    assert isinstance(result, Rendered)
    assert any("leaves the reasoning of earlier answers out" in note for note in result.notes)


@pytest.mark.parametrize(
    ("template", "written"),
    [(CHATML, '{"name": "weather", "arguments": {"city": "Paris"}}'), ("qwen3", "<tool_call>\n{")],
)
def test_a_call_that_a_speaker_says_is_written_as_he_says_it_where_the_template_knows_no_calls(
    template: str, written: str
) -> None:
    said = '{"name": "weather", "arguments": {"city": "Paris"}}'
    renderer = made(template)
    turns = [CALLING[0], {**CALLING[1], CALL_TEXT: said}, CALLING[2], CALLING[3]]
    result = rendered(renderer, *turns)
    learned = texts(renderer, result)[1]
    assert learned.startswith(written)
    assert isinstance(result, Rendered)
    told = any("tool calls are written as the row has them" in note for note in result.notes)
    assert told == (template == CHATML)
    # What an online trainer renders by itself is the same.
    asked = renderer.asked(turns[:3])
    assert (asked[1]["content"], "tool_calls" in asked[1]) == ((said, False) if template == CHATML else ("", True))
    assert CALL_TEXT not in asked[1]
