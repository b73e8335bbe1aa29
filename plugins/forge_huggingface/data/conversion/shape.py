"""The format of a source, and its rows in forge's own form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from forge_huggingface.data.conversion.calls import pruned
from forge_huggingface.data.conversion.cells import label_of, truth
from forge_huggingface.data.conversion.columns import Columns, blank, nothing
from forge_huggingface.data.conversion.ids import ids_of
from forge_huggingface.data.conversion.leftovers import heed
from forge_huggingface.data.conversion.messages import Turns, turns_of, written_messages
from forge_huggingface.data.conversion.pairs import pair_of
from forge_huggingface.data.conversion.parts import Parts
from forge_huggingface.data.conversion.templates import Wording, prefixed
from forge_huggingface.rows import AlienRow, BadRow, Completion, Conversation, Labelled, Prompt, Rated, Row, Text

ASKED = ("prompt", "question")
"""The formats of what a model is asked while it is trained: all other columns of a row go to reward functions."""


@dataclass(slots=True)
class Shape(Parts):
    """The format of a source. What its rows call their columns is looked up in each of them.

    Attributes:
        format: One of :data:`.formats.FORMATS`.
        prefix: What the job puts before every question.
        wording: The job's template of a row, if it has one.
        other: Tells which other format a row is of, if it is of one.
        told: Whether the job says of which format the rows are.
    """

    format: str = "text"
    prefix: str = ""
    wording: Wording | None = None
    other: Callable[[Mapping[str, Any]], str | None] | None = None
    told: bool = True

    @property
    def _read(self) -> Columns:
        """The columns of the source, not those that a template makes of them."""
        return self.columns if self.wording is None else self.wording.columns

    @property
    def used(self) -> dict[str, str]:
        """Return forge's name of each column that was taken, and the source's."""
        return self._read.used

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that were not taken so far; with the number of rows where others use them."""
        ignored = self._read.ignored
        # Reward functions get all columns but the one that is called as the prompt itself is.
        return tuple(name for name in ignored if name == "prompt") if self.format in ASKED else ignored

    def convert(self, raw: Mapping[str, Any], *, filled: bool = False) -> Row:
        """Turn a row of the source into forge's form.

        Args:
            raw: The row.
            filled: Whether the nulls within its objects were put there by Arrow.

        Raises:
            BadRow: It cannot be used;
                :class:`forge_huggingface.rows.AlienRow` if it holds what forge cannot train on at all.
        """
        read = pruned(raw) if filled else raw
        self._read.taken.clear()
        try:
            row = self._converted(read if self.wording is None else self.wording.fill(read), raw)
            row = prefixed(row, self.prefix) if self.prefix else row
            left = self._read.left(read)
            if left and self.wording is None:
                heed(self, self.format, read, left)
        except AlienRow:
            raise
        except BadRow as bad:
            if self.other is not None and (other := self.other(read)):
                raise BadRow(
                    f"is of another shape: {other}",
                    f"its columns are {', '.join(read)}, the source is {self.format}",
                    "put rows of different shapes into sources of their own",
                ) from bad
            raise
        if left:
            self._read.note(read, left)
        return row

    def _converted(self, raw: Mapping[str, Any], whole: Mapping[str, Any]) -> Row:
        match self.format:
            case "messages" | "sharegpt":
                turns = self.with_system(raw, self.messages(raw, _LISTS[self.format], self.speech.styles[self.format]))
                return self.conversation(raw, turns, len(turns) - 1, turns=True)
            case "text":
                return Text(self.columns.text(raw, "text"))
            case "tokens":
                return ids_of(raw, self.columns)
            case "prompt-completion":
                return self._prompt_completion(raw)
            case "preference":
                return pair_of(self, raw)
            case "unpaired-preference":
                return self._rated(raw)
            case "classification":
                return self._labelled(raw)
            case "prompt" | "question":
                return self._asked(raw, whole)
        return self._instructed(raw)

    def _instructed(self, raw: Mapping[str, Any]) -> Conversation:
        if self.format == "instruction":
            question, answer = self.columns.text(raw, "instruction"), self.columns.text(raw, "output")
            if extra := self.columns.optional(raw, "input"):
                question = f"{question}\n\n{extra}"
        else:
            question, answer = self.columns.text(raw, "input"), self.columns.text(raw, "output")
        asked = self.asked_by(raw, question)
        # Answers of a history are worth learning as the last one is: a question without one has a prompt and an answer.
        many = any(message["role"] == "assistant" for message in asked.messages)
        return self.conversation(raw, asked + Turns.said("assistant", answer), len(asked), turns=many)

    def _rated(self, raw: Mapping[str, Any]) -> Rated:
        label = truth(*self.columns.need(raw, "label")[::-1])
        if self.columns.find(raw, "completion") is None and self.columns.find(raw, "messages") is not None:
            turns = self.with_system(raw, self.messages(raw, "messages"))
            if turns.last != "assistant":
                raise BadRow(
                    "does not end with an assistant turn", f"its last turn is by {turns.last}", "remove that turn"
                )
            return Rated(self.conversation(raw, turns, len(turns) - 1, turns=False), label)
        return Rated(self._prompt_completion(raw), label)

    def _labelled(self, raw: Mapping[str, Any]) -> Labelled:
        column = self.columns.find(raw, "label") or self.columns.called(raw, "label")
        self.columns.taken.add(column)  # an empty list says that none of the labels fits
        label = label_of(raw.get(column), column, raw)
        if self.columns.find(raw, "text") is None and self.columns.find(raw, "messages", self.is_messages) is not None:
            turns = self.with_system(raw, self.messages(raw, "messages"))
            return Labelled(self.conversation(raw, turns, len(turns), turns=False), label)
        return Labelled(Text(self.columns.text(raw, "text")), label, self.columns.optional(raw, "text_pair"))

    def _asked(self, raw: Mapping[str, Any], whole: Mapping[str, Any]) -> Prompt:
        """Return a prompt, with all else that its row has for reward functions."""
        return replace(self._prompt(raw, whole), images=self.columns.get(raw, "images"))

    def _prompt(self, raw: Mapping[str, Any], whole: Mapping[str, Any]) -> Prompt:
        if self.format == "question":
            question = self.question(raw)
            if question is None:
                raise nothing(raw, self.columns.called(raw, "question"))
            asked = next(name for name in ("instruction", "question", "input") if self.columns.find(raw, name))
            column, turns = self.columns.called(raw, asked), self.asked_by(raw, question)
            prompt = tuple(turns.messages)
            if self.wording is not None:
                return Prompt(prompt, _without(whole, "prompt"))
            if not self.told and not blank(other := whole.get("prompt")) and "prompt" not in self.columns.taken:
                self._same(other, turns, column)
            return Prompt(prompt, _without(whole, column, "prompt"))
        column, value = self.columns.need(raw, "prompt")
        found = written_messages(value, self.speech)
        if isinstance(found, str):
            return Prompt(found, _without(whole, column))
        turns = turns_of(found, column, self.speech)
        if turns.last == "assistant":
            raise BadRow("ends with an assistant turn", "the model is to give the answer", "remove that turn")
        return Prompt(tuple(turns.messages), _without(whole, column))

    def _same(self, prompt: Any, asked: Turns, column: str) -> None:
        """Refuse a row that has a prompt, and another question: the first rows alone have made it a question."""
        found = written_messages(prompt, self.speech)
        turns = Turns.said("user", found) if isinstance(found, str) else turns_of(found, "prompt", self.speech)
        if asked.messages[-len(turns) :] != turns.messages:
            raise BadRow(
                "has a prompt and another question",
                f"'prompt' and {column!r} differ, and only one of them can be asked",
                'say which: [data] format = "prompt" or format = "question"',
            )

    def _prompt_completion(self, raw: Mapping[str, Any]) -> Conversation | Completion:
        cells = [self.columns.need(raw, name) for name in ("prompt", "completion")]
        prompt = written_messages(cells[0][1], self.speech)
        completion = written_messages(cells[1][1], self.speech, alone=not isinstance(prompt, str))
        if isinstance(prompt, str) and isinstance(completion, str) and not self.images(raw):
            return Completion(prompt, completion)
        # Plain text has no place for an image; the model's template does.
        first = Turns.said("user", prompt) if isinstance(prompt, str) else turns_of(prompt, cells[0][0], self.speech)
        if isinstance(completion, str):
            second = Turns.said("assistant", completion)
        else:
            second = turns_of(completion, cells[1][0], self.speech)
            if isinstance(prompt, str) and second.first != "assistant":
                raise BadRow("mixes a string and messages", "the completion begins with another turn than an answer")
        if "system" in self.columns.names:
            first = self.with_system(raw, first)
        return self.conversation(raw, first + second, len(first), turns=False)


_LISTS = {"messages": "messages", "sharegpt": "conversations"}


def _without(row: Mapping[str, Any], *columns: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in columns}
