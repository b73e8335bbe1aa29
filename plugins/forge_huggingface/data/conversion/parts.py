"""What rows of several formats have: messages, a system text, a question with what came before it, tools and images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_huggingface.data.conversion.calls import tools_of
from forge_huggingface.data.conversion.cells import parsed, parsed_list
from forge_huggingface.data.conversion.columns import Columns, several
from forge_huggingface.data.conversion.messages import Turns, is_list_of, turns_of
from forge_huggingface.data.conversion.roles import Speech
from forge_huggingface.rows import BadRow, Conversation
from forge_huggingface.vision.images import listed, seat

_MEDIA = ("video", "videos", "audio", "audios")


@dataclass(slots=True)
class Parts:
    """Finds the parts of a source's rows.

    Attributes:
        columns: The columns of the rows, and which of them were taken.
        speech: How messages are written.
    """

    columns: Columns
    speech: Speech

    def messages(self, raw: Mapping[str, Any], name: str, style: tuple[str, str] | None = None) -> Turns:
        """Return the messages that a row has in a column."""
        column = self.columns.find(raw, name, self.is_messages) or self.columns.called(raw, name)
        value = raw.get(column)
        if value is None:
            self.columns.need(raw, name)
        return turns_of(value, column, self.speech, style)

    def is_messages(self, value: Any) -> bool:
        """Tell whether a cell may be messages."""
        return not isinstance(value, str) or value.lstrip()[:1] in ("[", "{")

    def with_system(self, raw: Mapping[str, Any], turns: Turns) -> Turns:
        """Return messages with the row's own system text before them."""
        system = self.columns.optional(raw, "system")
        if system is None:
            return turns
        if turns.messages and turns.first == "system":
            if turns.messages[0]["content"] not in (system, system.strip()):
                column = self.columns.called(raw, "system")
                raise BadRow("has two system messages", f"one in {column!r}, one in its messages", "keep one of them")
            return turns
        return Turns.said("system", system) + turns

    def asked_by(self, raw: Mapping[str, Any], question: str) -> Turns:
        """Return a question with what the row has before it: a system text, and earlier turns."""
        return self.with_system(raw, self._history(raw) + Turns.said("user", question))

    def _history(self, raw: Mapping[str, Any]) -> Turns:
        if "history" not in self.columns.names or (column := self.columns.find(raw, "history")) is None:
            return Turns()
        value = parsed(raw[column], column)
        if is_list_of(value, *(style[0] for style in self.speech.styles.values())):
            return turns_of(value, column, self.speech)
        turns = Turns()
        for number, pair in enumerate(value if isinstance(value, list) else [None], 1):
            two = list(pair) if isinstance(pair, list | tuple) else []
            if len(two) != 2 or not all(isinstance(text, str) and text.strip() for text in two):
                what = f"pair {number} is {json.dumps(pair, ensure_ascii=False, default=str)[:60]}"
                raise BadRow(f"has a {column!r} that is no list of questions with answers", what, "write [[…, …], …]")
            turns += Turns.said("user", two[0]) + Turns.said("assistant", two[1])
        return turns

    def question(self, raw: Mapping[str, Any]) -> str | None:
        """Return the question of a row that may call it one thing or another; None if it has none."""
        names = self.columns
        instruction, question = names.optional(raw, "instruction"), names.optional(raw, "question")
        if instruction is None:
            return names.optional(raw, "input") if question is None else question
        if question is not None and question != instruction:
            raise several("question", names.called(raw, "instruction"), names.called(raw, "question"))
        extra = names.optional(raw, "input")
        return f"{instruction}\n\n{extra}" if extra else instruction

    def follow(self, prompt: Turns, answer: Turns) -> tuple[Turns, int]:
        """Return a prompt with the answer behind it, and where the answer starts.

        Raises:
            BadRow: The answer asks once more, and something else.
        """
        if answer.begins_with(prompt):  # the prompt stands in the answer's list as well
            answer = answer.since(len(prompt))
        elif answer.first in ("user", "system") and prompt.last == "user":
            raise BadRow(
                "has an answer that begins with another question",
                "its prompt is not what the answer's list begins with",
            )
        return prompt + answer, len(prompt)

    def other_text(self, raw: Mapping[str, Any]) -> str | None:
        """Return a column of text that is neither of two answers."""
        answers = {column for name in ("chosen", "rejected") for column in self.columns.names[name]}
        return next(
            (name for name in raw if name not in answers and isinstance(raw[name], str) and raw[name].strip()), None
        )

    def conversation(self, raw: Mapping[str, Any], said: Turns, start: int, *, turns: bool) -> Conversation:
        """Return a row's messages with what else it has for the chat template."""
        for column in _MEDIA:
            if column not in self.columns.taken and raw.get(column) not in (None, "", [], {}):
                what = f"has {column!r}, which no model is shown here"
                raise BadRow(what, "only text and images can be learnt from", "take the column out")
        if all(message["role"] == "assistant" for message in said.messages):
            raise BadRow("starts with an assistant turn", "there is nothing that it answers")
        tools = None
        extra: Any = {}
        if "tools" in self.columns.names:
            tools = tools_of(self.columns.get(raw, "tools"))
            extra = parsed(self.columns.get(raw, "chat_template_kwargs"), "template keys") or {}
            if not isinstance(extra, dict):
                raise BadRow("has chat_template_kwargs that are not an object")
        messages, pictures = seat(said.messages, self.images(raw))
        return Conversation(tuple(messages), start, turns, tools, extra, pictures, learned=said.learned)

    def images(self, raw: Mapping[str, Any]) -> Sequence[Any]:
        """Return the images that a row has in a column of its own."""
        if "images" not in self.columns.names:
            return ()
        return listed(parsed_list(self.columns.get(raw, "images")))
