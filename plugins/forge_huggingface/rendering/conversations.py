"""Conversations to text: what the chat template makes of one, and what of that is in the loss.

A text that does not hold all that its row says is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from forge_huggingface.rendering.content import REASONING, TEXT, lost, marked, unread
from forge_huggingface.rendering.labels import Piece
from forge_huggingface.rendering.reasoning import EMPTY
from forge_huggingface.rendering.spans import MARKER, answers, turn
from forge_huggingface.rows import CALL_TEXT, BadRow, Conversation, Span, UnwrittenRow, parting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forge_huggingface.rendering.templates import Template


TrainOn = Literal["auto", "completion", "assistant", "flagged", "all"]

_LONGEST = 64
"""How many characters before its end an answer's end token is looked for, with white space behind it."""

FORGOTTEN = "the chat template leaves the reasoning of earlier answers out"


@dataclass(frozen=True, slots=True)
class Conversations:
    """Turns conversations into pieces.

    Attributes:
        template: The chat template, studied.
        tokenizer: The tokenizer, for its special tokens.
        train_on: What is in the loss.
        mask_empty_reasoning: Whether what the template writes in place of reasoning stays out of it.
    """

    template: Template
    tokenizer: Any
    train_on: TrainOn = "auto"
    mask_empty_reasoning: bool = False

    def piece(self, row: Conversation) -> Piece:
        """Return a conversation as text, and what of it is in the loss.

        Raises:
            BadRow: The template refuses it or does not write all of it, or nothing of it can be learned.
        """
        messages = row.messages
        train_on = self.train_on if self.train_on != "auto" else "assistant" if row.turns else "completion"
        last = messages[-1]["role"] == "assistant"
        if train_on != "all" and not any(row.learned) and all(each["role"] != "assistant" for each in messages):
            raise BadRow("has no assistant turn")
        if train_on == "completion" and not last:
            raise BadRow(
                "does not end with an assistant turn",
                f"its last turn is by {messages[-1]['role']}",
                'remove that turn, or set train_on = "assistant"',
            )
        text, spans = self._written(row, len(messages))
        notes = self.told(row, text)
        if train_on == "all" and not row.learned:
            return Piece(text, open_end=last, notes=notes)
        many = any(each["role"] != "assistant" for each in messages[row.start :])
        if train_on == "completion" and not row.learned and not many:
            prompt, start = self._prompt(row, text)
            return Piece(text, prompt=text[:start] if start > len(prompt) else prompt, notes=notes)
        spans = self._spans(row, text, spans, train_on)
        if train_on != "all" and not all(self._ended(text, end) for _, end in spans[:-1]):
            notes = (*notes, "the chat template ends an answer within the conversation with no token of its own")
        flag = row.learned[-1] if row.learned else None
        open_end = last and (bool(flag) if train_on == "flagged" else flag is not False)
        return Piece(text, spans=tuple(spans), open_end=open_end, notes=notes)

    def _ended(self, text: str, end: int) -> bool:
        """Tell whether an answer has an end token, within its span or behind it."""
        ends = tuple(self.template.traits.ends)
        return text.startswith(ends, end) or text[max(0, end - _LONGEST) : end].rstrip().endswith(ends)

    def _written(self, row: Conversation, count: int, *, prompt: bool = False) -> tuple[str, list[Span]]:
        return self.template.render(
            self.tokenizer, row.messages[:count], tools=row.tools, prompt=prompt, extra=row.extra
        )

    def _prompt(self, row: Conversation, text: str) -> tuple[str, int]:
        """Return the prompt of a row as the template writes it, and where the loss begins in the row's text."""
        prompt, _ = self._written(row, row.start, prompt=True)
        start = len(prompt) if text.startswith(prompt) else parting(prompt, text)
        return prompt, self._behind_empty(text, start) if self.mask_empty_reasoning else start

    def _spans(self, row: Conversation, text: str, own: list[Span], train_on: TrainOn) -> list[Span]:
        """Return what of a conversation's text is in the loss, as spans of characters."""
        flags = dict(enumerate(row.learned))
        if train_on == "all":
            out = [self._turn(row, text, at) for at, flag in flags.items() if flag is False]
            spans = list(_without((0, len(text)), out))
        else:
            said = self._answers(row, text, own, whole=train_on == "assistant")
            if train_on == "flagged":
                said = {at: span for at, span in said.items() if flags.get(at)}
            if train_on == "completion":
                said = {at: span for at, span in said.items() if at >= row.start or flags.get(at)}
            told = {at: span for at, span in said.items() if flags.get(at) is not False}
            told |= {at: self._turn(row, text, at) for at, flag in flags.items() if flag and at not in told}
            spans = [told[at] for at in sorted(told)]
        if not spans:
            why = "its flags leave every message out" if row.learned else "no message has a flag that says so"
            raise BadRow("has nothing to train on", why)
        return spans

    def _answers(self, row: Conversation, text: str, own: list[Span], *, whole: bool) -> dict[int, Span]:
        """Return the span of every answer by the index of its message: the template's own, or found.

        Args:
            row: The conversation.
            text: What the template wrote.
            own: The spans that the template marks.
            whole: Whether all of them are wanted, so that it does not matter which is whose.
        """
        places = [at for at, message in enumerate(row.messages) if message["role"] == "assistant"]
        if self.template.marks_answers and not own:
            raise BadRow(
                "has no answer that the chat template marks", f"{{% generation %}} of {self.template.name} is empty"
            )
        if self.template.marks_answers and len(places) == len(own):
            found = dict(zip(places, own, strict=True))
        elif self.template.marks_answers and whole and not row.learned:
            # It marks several turns as one, or more than answers: that is its own business where no flag asks.
            found = dict(enumerate(own))
        else:
            found = answers(self.template, self.tokenizer, row, text)
        if self.mask_empty_reasoning:
            found = {at: (self._behind_empty(text, start), end) for at, (start, end) in found.items()}
        return found

    def _turn(self, row: Conversation, text: str, at: int) -> Span:
        return turn(self.template, self.tokenizer, row, text, at)

    def _behind_empty(self, text: str, start: int) -> int:
        """Return where an answer begins behind what stands in place of reasoning that it has none of."""
        empty = self.template.traits.empty_reasoning
        if empty and text.startswith(empty, start):
            return start + len(empty)
        found = EMPTY.match(text, start)
        return found.end() if found else start

    def told(self, row: Conversation, text: str) -> tuple[str, ...]:
        """Return what is to be told of a conversation's text. Raises :class:`BadRow` if it does not hold all of it."""
        name, traits = self.template.name, self.template.traits
        asked = max((at for at, message in enumerate(row.messages) if message["role"] == "user"), default=-1)
        notes = set()
        tools, writes = row.tools or self.template.tools, partial(self._writes, row)
        if tools and not traits.tools:
            raise UnwrittenRow(f"loses the tools in the chat template {name}", "it writes none")
        for number, what in lost(row.messages, tools, text, writes, forgets=traits.forgets):
            if what == REASONING:
                own_key = row.messages[number - 1].get("reasoning_content")
                if number <= asked and (traits.reasoning_key if own_key else traits.inline):
                    keeps = "" if traits.reasoning is None else "; [data] keep_reasoning = true keeps it"
                    notes.add(f"{FORGOTTEN}{keeps}")
                    continue
            phrase = {TEXT: "the text", REASONING: "the reasoning"}.get(what, what)
            where = f" of message {number}" if number else ""
            what = f"loses {phrase}{where} in the chat template {name}"
            raise UnwrittenRow(what, "it is not in the rendered text")
        if not traits.calls and any(CALL_TEXT in message for message in row.messages):
            notes.add("tool calls are written as the row has them, since the chat template writes none")
        for key in unread(row.messages, traits.words, text):
            notes.add(f"messages have the key {key!r}, which nothing reads")
        return tuple(sorted(notes))

    def _writes(self, row: Conversation, at: int, what: str, number: int) -> bool:
        """Tell whether the template writes the text, reasoning or call of a message, wherever and in whatever form."""
        messages = list(row.messages)
        messages[at] = marked(messages[at], what, number, MARKER)
        try:
            return MARKER in self.template.render(self.tokenizer, messages, tools=row.tools, extra=row.extra)[0]
        except BadRow:  # it checks what is said there, so it reads it
            return True


def _without(whole: Span, out: Iterable[Span]) -> Iterator[Span]:
    """Yield a span without others."""
    start, end = whole
    for first, last in sorted(out):
        if first > start:
            yield start, min(first, end)
        start = max(start, last)
    if start < end:
        yield start, end
