"""Random conversations through real templates: all that they hold is in the text, and in the loss is what was answered.

The reference is slow and knows nothing of forge: it renders a conversation prefix by prefix with transformers' own
function, and takes for an answer what a template writes for it beyond the prompt, up to where the next turn begins.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import Template
from forge_huggingface.rows import BadRow, Conversation, Rendered
from support.templates import real, tokenizer_for

HEADS = {
    "qwen2_5": ("<|im_start|>",),
    "qwen3": ("<|im_start|>",),
    "llama3_1": ("<|start_header_id|>",),
    "gemma3": ("<start_of_turn>",),
    "phi3": ("<|user|>", "<|system|>"),
    "glm4moe": ("<|user|>", "<|observation|>"),
    "lfm2_2_5": ("<|im_start|>",),
}
"""What a turn begins with in each template: an answer ends before it."""

CALLS = ("qwen2_5", "qwen3", "glm4moe", "lfm2_2_5")
THINK = ("qwen3", "glm4moe", "lfm2_2_5")

words = st.text(
    st.characters(codec="utf-8", exclude_characters="<>|[]{}\0\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=24
)
said = words.map(str.strip).filter(bool)


@st.composite
def conversations(draw: Any, name: str) -> list[dict[str, Any]]:
    """A conversation of up to four questions, with calls and reasoning where the template knows them."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(said)})
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(said)})
        if name in CALLS and draw(st.integers(0, 3)) == 0:
            arguments = draw(
                st.dictionaries(st.sampled_from(["city", "day", "unit"]), said | st.integers(), min_size=1)
            )
            call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
            messages.append({"role": "assistant", "content": draw(st.just("") | said), "tool_calls": [call]})
            messages.append({"role": "tool", "name": "look_up", "content": draw(said)})
        answer = {"role": "assistant", "content": draw(said)}
        if name in THINK and draw(st.integers(0, 2)) == 0:
            answer["reasoning_content"] = draw(said)
        messages.append(answer)
    return messages


def expected(text: str, tokenizer: Any, heads: tuple[str, ...], messages: list[dict[str, Any]]) -> list[str]:
    """The answers as the template writes them, each with its end of turn."""
    from transformers.utils.chat_template_utils import render_jinja_template

    # Some templates read `thinking`; transformers before 5.23 does not give it to them.
    messages = [
        {"thinking": each["reasoning_content"], **each} if "reasoning_content" in each else each for each in messages
    ]

    def render(upto: list[dict[str, Any]], *, prompt: bool = False) -> str:
        named = dict(tokenizer.special_tokens_map)
        return render_jinja_template(conversations=[upto], chat_template=text, add_generation_prompt=prompt, **named)[
            0
        ][0]

    whole, found = render(messages), []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(messages[:index], prompt=True)
        assert whole.startswith(before)
        rest = whole[len(before) :]
        found.append(rest[: min([at for head in heads if (at := rest.find(head)) >= 0], default=len(rest))])
    return found


@pytest.mark.parametrize("name", HEADS)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_all_is_written_and_only_answers_are_learned(name: str, data: Any) -> None:
    text = real(name)
    tokenizer = tokenizer_for(text)
    messages = data.draw(conversations(name))
    renderer = Renderer(tokenizer, Template(name, text, "model"), max_seq_length=100_000)
    (result,) = renderer.render([Conversation(tuple(messages), len(messages) - 1, turns=True)])
    assert isinstance(result, Rendered), result
    written = tokenizer.decode(result.input_ids)
    last = max(at for at, message in enumerate(messages) if message["role"] == "user")
    for at, message in enumerate(messages):
        assert message["content"] in written or json.dumps(message["content"], ensure_ascii=False)[1:-1] in written
        for call in message.get("tool_calls", ()):
            assert all(key in written for key in call["function"]["arguments"])
        if at > last and "reasoning_content" in message:
            assert message["reasoning_content"] in written
    learned = tokenizer.decode([label for label in result.labels if label != -100])
    answers = "".join(expected(text, tokenizer, HEADS[name], messages))
    assert learned.removesuffix("</s>") == answers.removesuffix("</s>")


@pytest.mark.parametrize("name", HEADS)
def test_a_turn_that_vanishes_is_never_silent(name: str) -> None:
    text = real(name)
    tokenizer = tokenizer_for(text)
    turns = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "Elbe."},
    ]
    for gone in range(len(turns)):
        mark = (
            "{%- set kept = [] -%}{%- for m in messages -%}"
            f"{{%- set _ = kept.append(dict(m, content='' if loop.index0 == {gone} else m.content)) -%}}"
            "{%- endfor -%}{%- set messages = kept -%}\n"
        )
        (result,) = Renderer(tokenizer, Template(name, mark + text, "model")).render(
            [Conversation(tuple(turns), 3, turns=True)]
        )
        assert isinstance(result, BadRow), gone
        assert f"message {gone + 1}" in result.what or "refused" in result.what


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "phi3"])
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_answers_are_found_where_trls_training_templates_mark_them(name: str, data: Any) -> None:
    messages = [each for each in data.draw(conversations(name)) if "tool_calls" not in each and each["role"] != "tool"]
    row = Conversation(tuple(messages), len(messages) - 1, turns=True)
    learned = []
    for text in (real(name), real(f"{name}_training")):
        tokenizer = tokenizer_for(real(name))
        (result,) = Renderer(tokenizer, Template(name, text, "model"), max_seq_length=100_000).render([row])
        assert isinstance(result, Rendered), result
        runs = tokenizer.decode([label if label != -100 else tokenizer.pad_token_id for label in result.labels])
        learned.append([run.strip() for run in runs.split("<pad>") if run.strip() and run.strip() != "</s>"])
    found, marked = learned
    assert [run.removesuffix("</s>").strip() for run in found] == [run.removesuffix("</s>").strip() for run in marked]


@pytest.mark.parametrize("name", ["qwen2_5", "llama3_1", "phi3"])
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_flags_take_answers_out_and_leave_the_others_alone(name: str, data: Any) -> None:
    messages = data.draw(conversations(name))
    places = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    out = data.draw(st.sets(st.sampled_from(places)))
    text = real(name)
    tokenizer = tokenizer_for(text)
    renderer = Renderer(tokenizer, Template(name, text, "model"), max_seq_length=100_000)
    flags = tuple(False if at in out else None for at in range(len(messages)))
    (result,) = renderer.render([Conversation(tuple(messages), len(messages) - 1, True, learned=flags)])
    if len(out) == len(places):
        assert isinstance(result, BadRow)
        return
    assert isinstance(result, Rendered), result
    learned = tokenizer.decode([label for label in result.labels if label != -100]).removesuffix("</s>")
    answers = expected(text, tokenizer, HEADS[name], messages)
    kept = "".join(answer for at, answer in zip(places, answers, strict=True) if at not in out)
    assert learned == kept.removesuffix("</s>")
