"""Long conversations: their cost grows with their length, and where it would grow faster it has a bound."""

from __future__ import annotations

from typing import Any

import pytest

from forge_huggingface.rendering import effort, spans
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import Template
from forge_huggingface.rows import BadRow, Conversation, Rendered
from support.templates import real, tokenizer_for
from support.tiny import CHATML

REAL = ("qwen3", "qwen2_5", "llama3", "llama3_2", "gemma", "phi3", "deepseekv3", "cohere", "glm4moe", "gptoss")


def conversation(count: int, **more: Any) -> Conversation:
    turns: list[dict[str, Any]] = []
    for number in range(count):
        turns.append({"role": "user", "content": "Go on." if number % 3 else f"What is {number}?"})
        turns.append({"role": "assistant", "content": f"It is {number // 2}."})
    return Conversation(tuple(turns), len(turns) - 1, turns=True, **more)


def counted(monkeypatch: pytest.MonkeyPatch, text: str, row: Conversation) -> tuple[Rendered | BadRow, int]:
    renderer = Renderer(tokenizer_for(text), Template("test", text, "model"), max_seq_length=1_000_000)
    calls, render = 0, Template.render

    def count(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return render(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Template, "render", count)
        (made,) = renderer.render([row])
    return made, calls


def test_a_longer_conversation_is_rendered_no_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [counted(monkeypatch, CHATML, conversation(count))[1] for count in (50, 400)]
    assert calls[0] == calls[1] < 20


@pytest.mark.parametrize("name", REAL)
def test_answers_of_long_conversations_are_found_where_each_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = real(name)
    for row in (conversation(40), _odd(conversation(40))):
        made, _ = counted(monkeypatch, text, row)
        with monkeypatch.context() as patch:
            patch.setattr(spans, "alike", lambda *_: {})
            exact, _ = counted(monkeypatch, text, row)
        assert isinstance(made, Rendered), made
        assert made == exact


def _odd(row: Conversation) -> Conversation:
    """Return a conversation of which some answers are not like the others."""
    messages = list(row.messages)
    messages[21] = {**messages[21], "content": " It is eleven.\n"}
    messages[31] = {**messages[31], "content": "<think>\nFifteen?\n</think>\n\nIt is 15."}
    return Conversation(tuple(messages), row.start, turns=True)


def test_an_answer_in_the_middle_that_is_written_otherwise_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = CHATML.replace(
        "message['content'] + '<|im_end|>'",
        "message['content'] + ('!' if loop.index == 42 else '') + '<|im_end|>'",
    )
    made, calls = counted(monkeypatch, odd, conversation(40))
    assert isinstance(made, Rendered)
    assert calls < 25
    learned = tokenizer_for(odd).decode([label for label in made.labels if label != -100])
    assert "It is 10.!<|im_end|>" in learned


def test_a_conversation_that_would_take_hours_is_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = conversation(60)
    flagged = Conversation(row.messages, row.start, turns=True, learned=(True,) * len(row.messages))
    assert isinstance(counted(monkeypatch, CHATML, flagged)[0], Rendered)
    monkeypatch.setattr(effort, "MOST", 2000)
    made, calls = counted(monkeypatch, CHATML, flagged)
    assert isinstance(made, BadRow)
    assert made.what == "has too many messages for its chat template"
    assert calls < 30
