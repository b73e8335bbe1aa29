"""The format of a source as its first row showed it, and its rows in forge's own form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forge_huggingface.data.cells import messages_of, parsed, parsed_list, string_of, value_of
from forge_huggingface.data.ids import ids_of
from forge_huggingface.rows import BadRow, Completion, Conversation, Message, Pair, Prompt, Rated, Row, Text, parting
from forge_huggingface.vision.images import listed, seat

IMAGES = ("images", "image")
"""The columns that hold a row's images, where the job names none."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The format of a source, as found in its first row.

    Attributes:
        format: One of :data:`.formats.FORMATS`.
        columns: forge's name of a column, and the source's.
        ignored: Columns that are not used.
        auto_images: Whether the column of images goes by forge's names, not by one that the job gives.
    """

    format: str
    columns: Mapping[str, str]
    ignored: tuple[str, ...]
    auto_images: bool = True

    def convert(self, raw: Mapping[str, Any]) -> Row:
        """Turn a row of the source into forge's form.

        Raises:
            BadRow: It cannot be used;
                :class:`forge_huggingface.rows.AlienRow` if it holds what forge cannot train on at all.
        """
        if self.format == "text":
            return Text(string_of(raw, self.columns["text"]))
        if self.format == "tokens":
            return ids_of(raw, self.columns)
        if self.format == "prompt-completion":
            return self._prompt_completion(raw)
        if self.format == "preference":
            return self._preference(raw)
        if self.format == "unpaired-preference":
            label = value_of(raw, self.columns["label"])
            if not isinstance(label, bool) and label not in (0, 1):
                raise BadRow(f"has no truth value in {self.columns['label']!r}", f"it is {label!r}")
            return Rated(self._prompt_completion(raw), bool(label))
        if self.format in ("prompt", "question"):
            return self._asked(raw)
        if self.format in {"messages", "sharegpt"}:
            column = self.columns["messages" if self.format == "messages" else "conversations"]
            messages = messages_of(value_of(raw, column), column, sharegpt=self.format == "sharegpt")
            system = self._optional(raw, "system")
            if system and messages[0]["role"] != "system":
                messages = [{"role": "system", "content": system}, *messages]
            return self._conversation(raw, messages, len(messages) - 1, turns=True)
        names = ("instruction", "output") if self.format == "instruction" else ("input", "output")
        question, answer = (string_of(raw, self.columns[name]) for name in names)
        if self.format == "instruction" and (extra := self._optional(raw, "input")):
            question = f"{question}\n\n{extra}"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if system := self._optional(raw, "system"):
            messages.insert(0, {"role": "system", "content": system})
        messages, pictures = seat(messages, self._images(raw))
        return Conversation(tuple(messages), len(messages) - 1, turns=False, pictures=pictures)

    def _images(self, raw: Mapping[str, Any]) -> list[Any]:
        # Rows of one file may have images or not, so later rows are not bound to what the first one had.
        columns = IMAGES if self.auto_images else (self.columns["images"],)
        found = next((value for column in columns if (value := raw.get(column)) is not None), None)
        return listed(parsed_list(found))

    def _preference(self, raw: Mapping[str, Any]) -> Pair:
        names, key = self.columns, self.columns.get("prompt")
        sides: list[Conversation | Completion] = []
        if key is not None:
            sides = [self._prompt_completion(raw, answer=name) for name in ("chosen", "rejected")]
        else:
            texts = [value_of(raw, names[name]) for name in ("chosen", "rejected")]
            if all(isinstance(text, str) for text in texts):
                chosen, rejected = (string_of(raw, names[name]) for name in ("chosen", "rejected"))
                start = _shared(chosen, rejected)
                sides = [Completion(text[:start], text[start:]) for text in (chosen, rejected)]
            else:
                both = [messages_of(raw[names[name]], names[name]) for name in ("chosen", "rejected")]
                start = parting(*both)
                if any(start >= len(messages) for messages in both):
                    raise BadRow("has the same answer as chosen and as rejected", "there is nothing to prefer")
                sides = [self._conversation(raw, messages, start, turns=False) for messages in both]
        margin = raw.get(names.get("margin", "margin"))
        if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
            raise BadRow("has a margin that is not a number", f"it is a {type(margin).__name__}")
        return Pair(sides[0], sides[1], None if margin is None else float(margin))

    def _asked(self, raw: Mapping[str, Any]) -> Prompt:
        key = self.columns[self.format]
        asked = parsed_list(value_of(raw, key))
        others = {name: value for name, value in raw.items() if name != key}
        if self.format == "prompt" and not isinstance(asked, str):
            messages = messages_of(asked, key)
            if messages[-1]["role"] == "assistant":
                raise BadRow("ends with an assistant turn", "the model is to give the answer", "remove that turn")
            return Prompt(tuple(messages), others)
        text = string_of(raw, key)
        if self.format == "prompt":
            return Prompt(text, others)
        messages = [{"role": "user", "content": text}]
        if system := self._optional(raw, "system"):
            messages.insert(0, {"role": "system", "content": system})
        return Prompt(tuple(messages), others)

    def _prompt_completion(self, raw: Mapping[str, Any], answer: str = "completion") -> Conversation | Completion:
        prompt, completion = (value_of(raw, self.columns[name]) for name in ("prompt", answer))
        if isinstance(prompt, str) and isinstance(completion, str):
            prompt, completion = (string_of(raw, self.columns[name]) for name in ("prompt", answer))
            if not self._images(raw):
                return Completion(prompt, completion)
            # Plain text has no place for an image; the model's template does.
            prompt, completion = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": completion}]
        if isinstance(prompt, str) or isinstance(completion, str):
            raise BadRow("mixes a string and messages", f"prompt and {answer} must both be strings or both lists")
        first = messages_of(prompt, self.columns["prompt"])
        second = messages_of(completion, self.columns[answer])
        if answer != "completion" and second[: len(first)] == first:  # the prompt stands in the answer's list as well
            second = second[len(first) :]
        return self._conversation(raw, [*first, *second], len(first), turns=False)

    def _conversation(
        self, raw: Mapping[str, Any], messages: list[Message], start: int, *, turns: bool
    ) -> Conversation:
        if messages[0]["role"] == "assistant":
            raise BadRow("starts with an assistant turn", "there is nothing that it answers")
        tools = parsed(raw.get(self.columns.get("tools", "tools")), "tools")
        if tools is not None and not isinstance(tools, list):
            raise BadRow("has tools that are not a list")
        extra = parsed(raw.get(self.columns.get("chat_template_kwargs", "chat_template_kwargs")), "template keys") or {}
        if not isinstance(extra, dict):
            raise BadRow("has chat_template_kwargs that are not an object")
        messages, pictures = seat(messages, self._images(raw))
        return Conversation(tuple(messages), start, turns, tuple(tools) if tools else None, extra, pictures)

    def _optional(self, raw: Mapping[str, Any], name: str) -> str | None:
        column = self.columns.get(name)
        value = raw.get(column) if column else None
        if value is not None and not isinstance(value, str):
            raise BadRow(f"has no text in {column!r}", f"it is a {type(value).__name__}")
        return value if value and value.strip() else None


def _shared(first: str, second: str) -> int:
    """Return where two texts part, without a space before it: a prompt that both begin with, as TRL takes it."""
    part = parting(first, second)
    if part == min(len(first), len(second)):
        raise BadRow(
            "has an answer that is the beginning of the other",
            "the prompt cannot be told from it",
            "give the prompt in a column of its own",
        )
    return part - 1 if part and first[part - 1] == " " else part
