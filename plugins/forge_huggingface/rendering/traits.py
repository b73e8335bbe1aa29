"""What a chat template does, as :mod:`.study` finds by trying it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """What a template does.

    Attributes:
        unasked: What it writes behind the last answer although nobody asked for another one: the head of an answer.
        arguments_as_text: Whether it wants the arguments of a tool call as JSON text, and not as an object.
        tools: Whether it writes tools.
        calls: Whether it writes tool calls.
        silence: What it wants as the content of a turn that only calls tools.
        empty_reasoning: What it writes before an answer that has no reasoning, in place of it.
        reasoning_key: The key of a message whose reasoning it writes; None if it knows none.
        inline: Whether it knows reasoning that stands within the text of an answer.
        forgets: Whether it leaves the reasoning of earlier answers out.
        reasoning: What it writes before the reasoning of a last answer, and between that and the answer, where earlier
            answers have nothing in that place.
        closing: What it writes behind the text of any answer, last or not; None if that differs.
        ends: The tokens that end turns: the tokenizer's end token, and what follows a question.
        words: The names that it reads. A key of a message that is not among them is not read.
    """

    unasked: str = ""
    arguments_as_text: bool = False
    tools: bool = True
    calls: bool = True
    silence: str | None = ""
    empty_reasoning: str = ""
    reasoning_key: str | None = None
    inline: bool = True
    forgets: bool = False
    reasoning: tuple[str, str] | None = None
    closing: str | None = None
    ends: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
