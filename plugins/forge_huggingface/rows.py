"""What a row is between its file and its tokens.

Reading, converting and rendering live in modules of their own; these few types are all that they need to know of each
other. A row that cannot be used is a value, not only an exception, because it is the job that decides whether one bad
row ends the run or is dropped and counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


Message = dict[str, Any]

Label = str | int | float | tuple[str, ...]
"""What a row says of its text: a class, by name or number; several; or a number."""

Span = tuple[int, int]
"""Where something begins and ends."""

CALL_TEXT = "call_text"
"""The key of a message with the text that its ``tool_calls`` were read from, for templates that write no calls."""


class BadRow(Exception):  # noqa: N818 - a verdict that travels as a value more often than it is raised
    """A row cannot be used.

    Args:
        what: A phrase that follows the row's name, as in ``"has no assistant turn"``.
        why: The cause, where the phrase does not say it.
        do: What to do about it.
    """

    def __init__(self, what: str, why: str | None = None, do: str | None = None) -> None:
        # Half a character of a row, quoted here, could be written nowhere.
        what = what.encode(errors="backslashreplace").decode()
        why = why and why.encode(errors="backslashreplace").decode()
        super().__init__(what, why, do)
        self.what, self.why, self.do = what, why, do

    def at(self, origin: str, note: str | None = None) -> DataError:
        """Return the error that names the row."""
        why = ", ".join(part for part in (self.why, note) if part) or None
        return DataError(f"{origin} {self.what}", why, self.do)

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class LongRow(BadRow):
    """A row is longer than ``max_seq_length``, and the job does not want it cut."""


class CutAlike(BadRow):
    """A pair whose answers differ only beyond ``max_seq_length``, so that nothing is left to prefer."""


class UnwrittenRow(BadRow):
    """The chat template refuses a row, or does not write all of it; another template may."""


class UnfetchedRow(BadRow):
    """A row has an image that cannot be fetched: where bad rows end the run, no others are tried to count them."""


class AlienRow(BadRow):
    """A row holds what cannot be trained on here at all: it ends the run, whatever ``on_bad_row`` says."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages that a chat template turns into text.

    Attributes:
        messages: All messages, ``None`` values removed.
        start: Index of the first message of the completion; the messages before it are the prompt.
        turns: Whether it is a conversation, whose every answer is worth learning, or a prompt with its answer.
        tools: Tool descriptions for the template.
        extra: Further variables for the template.
        pictures: What the row gives as images, in the order of their places in the messages.
        folder: The folder of the row's file, where relative paths of images start.
        learned: For each message whether the row says that it is in the loss; None where it says nothing. Empty where
            no message says anything.
    """

    messages: tuple[Message, ...]
    start: int
    turns: bool
    tools: tuple[Any, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[Any, ...] = ()
    folder: Path | None = None
    learned: tuple[bool | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and what follows it, as plain strings: no template is involved."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """A plain text, as in pretraining."""

    text: str


@dataclass(frozen=True, slots=True)
class Ids:
    """Finished tokens, taken as they are: no template, and no token put before or behind them.

    Attributes:
        input_ids: The tokens.
        labels: The same tokens, with -100 where they are not in the loss.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether all of it is in the loss, as of a plain text."""
        return self.labels == self.input_ids


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, the better first.

    Attributes:
        chosen: The prompt with the better answer.
        rejected: The same prompt with the other one.
        margin: By how much it is better, if somebody says so.
    """

    chosen: Conversation | Completion
    rejected: Conversation | Completion
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer to a prompt, and whether it is a good one."""

    row: Conversation | Completion
    good: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked while it is trained.

    Attributes:
        prompt: Messages, or a plain text that no template is put around.
        columns: All other columns of the row, for reward functions.
        images: What the row has in its column of images, as it stands there.
        folder: The folder of the row's file, where relative paths of images start.
    """

    prompt: tuple[Message, ...] | str
    columns: Mapping[str, Any]
    images: Any = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, or two, and what is to be told of it.

    Attributes:
        row: The text.
        label: The name of its class, the names of several, or a number.
        pair: The second text, where each row is of two.
    """

    row: Conversation | Text
    label: Label
    pair: str | None = None


Plain = Conversation | Completion | Text | Ids
"""A row that is one sequence: what the renderer turns into tokens and labels."""

Row = Plain | Pair | Rated | Labelled | Prompt


TRAINERS_OWN = frozenset(
    {
        "completion",
        "completion_ids",
        "completions",
        "environment",
        "environments",
        "image",
        "images",
        "log_extra",
        "log_metric",
        "prompts",
        "trainer_state",
    }
)
"""Names under which TRL's online trainers look for something of their own in a row, or give it to rewards."""

_APART = "row."


def set_apart(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row of prompts under names that no trainer takes for its own.

    >>> set_apart({"image": None, "answer": "4"})
    {'row.image': None, 'answer': '4'}
    """
    return {f"{_APART}{name}" if name in TRAINERS_OWN else name: value for name, value in columns.items()}


def put_back(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`set_apart` was given."""
    return {
        name.removeprefix(_APART) if name.removeprefix(_APART) in TRAINERS_OWN else name: value
        for name, value in columns.items()
    }


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as tokens.

    Attributes:
        input_ids: The tokens.
        labels: The same tokens, with -100 where they are not in the loss.
        length: The length before truncation.
        eos: ``"there"``, ``"appended"`` by forge, ``"cut"`` off by truncation, or ``"missing"``.
        diverged: The template renders the prompt alone otherwise than before its answer.
        text: The text that the tokens came from, each image a single placeholder; only for models that take images.
        pictures: The row's images, as columns of the store.
        turns: Its messages as JSON, contents as parts; ``"[]"`` if it is no conversation.
        notes: What a person should know of it, each a phrase that follows "in 3 rows": they are counted and told.
        rest: The pieces that follow this one, of a plain text that has become several rows.
    """

    input_ids: list[int]
    labels: list[int]
    length: int
    eos: str
    diverged: bool = False
    text: str = ""
    pictures: tuple[Mapping[str, Any], ...] = ()
    turns: str = "[]"
    notes: tuple[str, ...] = ()
    rest: tuple[Rendered, ...] = ()

    @property
    def truncated(self) -> bool:
        """Whether the row was longer than it may be."""
        return self.length > len(self.input_ids)

    def columns(self, *, images: bool) -> dict[str, Any]:
        """Return the columns of the store."""
        columns = {"input_ids": self.input_ids, "labels": self.labels}
        if not images:
            return columns
        return {**columns, "text": self.text, "turns": self.turns, "pictures": list(self.pictures)}

    @property
    def supervised(self) -> int:
        """The number of tokens in the loss."""
        return len(self.labels) - self.labels.count(-100)


@dataclass(frozen=True, slots=True)
class Record:
    """A row as its layout stores it.

    Attributes:
        parts: The sequences that the model gets.
        columns: The columns of the store.
        rest: The rows that follow this one, where a row of the file has become several.
    """

    parts: tuple[Rendered, ...]
    columns: Mapping[str, Any]
    rest: tuple[Record, ...] = ()

    def pieces(self, origin: str) -> Iterator[tuple[str, Record]]:
        """Yield the rows that a row of the file has become, each with its place: ``"a.txt:1 (2 of 5)"`` of several."""
        count = 1 + len(self.rest)
        for number, piece in enumerate((self, *self.rest), 1):
            yield (f"{origin} ({number} of {count})" if count > 1 else origin), piece

    @property
    def length(self) -> int:
        """The length of the longest sequence: batches are padded to it."""
        return max(len(part.input_ids) for part in self.parts)

    @property
    def tokens(self) -> int:
        """The number of tokens in all sequences."""
        return sum(len(part.input_ids) for part in self.parts)

    @property
    def supervised(self) -> int:
        """The number of tokens in the loss."""
        return sum(part.supervised for part in self.parts)


def row_of(origin: str) -> str | None:
    """Return the place of the row that a place is of, or None if it is a piece of it other than the first.

    >>> row_of("a.txt:1"), row_of("a.txt:1 (1 of 5)"), row_of("a.txt:1 (2 of 5)")
    ('a.txt:1', 'a.txt:1', None)
    """
    piece = re.fullmatch(r"(.*) \((\d+) of \d+\)", origin)
    return origin if piece is None else piece[1] if piece[2] == "1" else None


def parts_of(content: Any) -> list[dict[str, Any]]:
    """Return a message's content as a list of parts."""
    return content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []


def text_of(content: Any) -> str:
    """Return the text of a message's content."""
    return "".join(part.get("text") or "" for part in parts_of(content))


def source_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what an encoder reads of messages."""
    return "\n\n".join(text_of(message["content"]) for message in messages)


def parting(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the first place at which two texts, or two rows of tokens, differ: the end of the shorter if nowhere.

    >>> parting("to be", "to do"), parting([1, 2], [1, 2, 3])
    (3, 2)
    """
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
