"""The tables ``[data]`` and ``[[data.sources]]`` of a job file: where the rows are, and how they are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from forge.errors import Mistake
from forge.job.elsewhere import DATA_KEYS, advice
from forge.job.table import Hint, NonEmpty, Table

Format = Literal[
    "auto",
    "messages",
    "sharegpt",
    "prompt-completion",
    "instruction",
    "input-output",
    "text",
    "tokens",
    "preference",
    "unpaired-preference",
    "classification",
    "prompt",
    "question",
]

Role = Literal["system", "developer", "user", "assistant", "tool"]

MessageKey = Literal["role", "content", "reasoning_content", "tool_calls"]

_ROW = ("row_template",)
_TEMPLATE_KEYS = (("prompt",), ("prompt", "completion"), ("user",), ("user", "assistant"))


_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Pieces = tuple[tuple[str, str | None], ...]
"""A text cut at its columns: what stands before each, and its name; None behind the last."""


class Source(Table):
    """``[[data.sources]]``: one place that rows come from. ``[data]`` itself takes the same keys for a single one."""

    path: str | list[str] | None = Field(
        None, description="File, folder, glob, hub id, or a list of files: JSON, JSONL, CSV, Parquet, Arrow."
    )
    name: str | None = Field(None, description="Configuration (subset) of a hub data set.")
    split: str | None = Field(None, description="Split of a hub data set or folder; `train` if there is one.")
    revision: str | None = Field(None, description="Revision of a hub data set.")
    format: Format = Field("auto", description="Shape of the rows; `auto` goes by the columns and says what it took.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="What forge calls a column = what the file calls it."
    )
    roles: dict[str, Role] = Field(
        default_factory=dict, description='Speakers that forge does not know, as in `{ customer = "user" }`.'
    )
    message_keys: dict[MessageKey, str] = Field(
        default_factory=dict, description='What a message\'s keys are called: `{ role = "speaker", content = "text" }`.'
    )
    row_template: str | dict[str, str] | None = Field(
        None,
        description="Text to make of each row, with columns in braces: a string, or a table of `prompt` and "
        "`completion`, or of `system`, `user` and `assistant`.",
    )
    prompt_prefix: NonEmpty | None = Field(None, description="Text to put before the question of every row.")
    weight: float = Field(1.0, gt=0, description="How often each row is seen in an epoch: 0.5 takes half of the rows.")
    share: float | None = Field(
        None, gt=0, description="Part of this source in the mixture, instead of `weight`; the others name theirs too."
    )
    max_rows: int | None = Field(None, ge=1, description="Take only the first rows of this source.")
    draw_rows: int | None = Field(None, ge=1, description="Take so many rows of this source, drawn by `[train] seed`.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        template = self.row_template
        if isinstance(template, dict) and tuple(key for key in template if key != "system") not in {
            *_TEMPLATE_KEYS,
            *(keys[::-1] for keys in _TEMPLATE_KEYS),
        }:
            what = f"row_template has the keys {', '.join(template) or 'none'}"
            yield Mistake(f"{what}; write prompt and completion, or user and assistant, or the first alone", _ROW)
        elif isinstance(template, dict) and "system" in template and "prompt" in template:
            yield Mistake("row_template has system beside prompt, which no template is put around; write user", _ROW)
        try:
            pieces = self.row_pieces()
        except ValueError as error:
            yield Mistake(f"row_template cannot be read: {error}; write {{{{ and }}}} for braces", _ROW)
        else:
            if pieces and not any(column for text in pieces.values() for _, column in text):
                yield Mistake("row_template names no column, so all rows would be alike; write {column}", _ROW)
        others = {name: getattr(self, name) for name in ("format", "columns", "roles", "message_keys")}
        if template is not None and (beside := [name for name, value in others.items() if value not in ("auto", {})]):
            what = f"row_template says what a row is, so {' and '.join(beside)} would do nothing"
            yield Mistake(f"{what}; remove one", (*_ROW, *beside))

    def row_pieces(self) -> dict[str, Pieces]:
        """Return the texts of ``row_template`` by name, cut at their columns; a plain string is ``text``.

        Raises:
            ValueError: A text has braces that are no column's.
        """
        template = self.row_template
        texts = {"text": template} if isinstance(template, str) else template or {}
        return {name: pieces_of(text) for name, text in texts.items()}


def _moment(value: object) -> str:
    """Return a local date and time as text: TOML has a type for them, and JSON, in which plans are, has none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime) or value.tzinfo is not None:
        raise ValueError("must be a local date and time without an offset; write date = 2026-11-28T12:00:00")
    return value.isoformat()


class DataTable(Source):
    """``[data]``: the rows, and how they become tokens."""

    sources: list[Source] = Field(default_factory=list, description="Several sources instead of one `path`.")
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] | None = Field(
        None,
        description="Where sources have a `share`, how long an epoch is: until the first source is used up "
        "(`first_exhausted`, the default), or until all are, the others repeated (`all_exhausted`).",
    )
    streaming: bool = Field(False, description="Read rows as they are needed. Needs `[train] max_steps`.")
    chat_template: str | None = Field(
        None, description="Name of a template that forge ships, or a `.jinja` file. Without it, the model's own."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None,
        description="Variables for the chat template, such as `enable_thinking`: for rows, evaluation, chat and "
        "exports' checks. A row's own column wins, key by key.",
    )
    system_prompt: NonEmpty | None = Field(
        None, description="System message for conversations that have none. `forge chat` begins with it too."
    )
    tools: NonEmpty | list[dict[str, Any]] | None = Field(
        None, description="Tools for conversations that have none: a JSON file with a list, or the list itself."
    )
    date: Annotated[str, BeforeValidator(_moment)] | None = Field(
        None,
        description="The moment that a chat template takes for now. If it asks for one, the run's start, written into "
        "the lock.",
    )
    train_on: Literal["auto", "completion", "assistant", "flagged", "all"] = Field(
        "auto",
        description="Tokens in the loss: `completion` (the last answer), `assistant` (every answer), `all`; `flagged` "
        "takes only messages whose flag says so. `auto` takes every answer of a conversation, the completion of a "
        "prompt, all of a plain text. A message's flag (`weight`, `train`, …) wins.",
    )
    keep_reasoning: bool = Field(
        False, description="Write the reasoning of earlier answers too, where the chat template leaves it out."
    )
    mask_empty_reasoning: bool = Field(
        False, description="Leave the empty `<think>` block that templates write for no reasoning out of the loss."
    )
    max_pixels: int | None = Field(
        None, ge=1, description="Make images of more pixels smaller, for vision models. An image's own wins."
    )
    min_pixels: int | None = Field(None, ge=1, description="Make images of fewer pixels larger.")
    image_background: Literal["white", "black"] | Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")] | None = Field(
        None, description="What transparent images lie on: `white`, the default, `black`, or `#rrggbb`."
    )
    eval_path: str | list[str] | None = Field(None, description="Held-out rows: a file, folder, glob or hub id.")
    eval_split: str | None = Field(None, description="Held-out split of the same source.")
    eval_size: int | float | None = Field(
        None, gt=0, description="Hold out this many rows (or this share, below 1) of the training rows."
    )
    on_bad_row: Literal["error", "drop"] = Field("error", description="What to do with a row that cannot be used.")
    max_bad_rows: int | float = Field(
        0.05, ge=0, description="With `drop`: the most rows (or the largest share, below 1) that may be dropped."
    )
    on_long_row: Literal["auto", "split", "truncate", "drop", "error"] = Field(
        "auto",
        description="What to do with a row longer than `[model] max_seq_length`: `split` a plain text into several "
        "rows, `truncate`, `drop`, or `error`. `auto` splits texts and cuts other rows, unless more than a tenth of "
        "all tokens were lost. Counted and said.",
    )
    max_rows: int | None = Field(
        None, ge=1, description="Take only the first rows of the training data, of all sources together."
    )
    packing: bool = Field(False, description="Fill each row up to `max_seq_length` with several, kept apart.")
    padding_free: bool | None = Field(
        None,
        description="Lay the rows of a batch end to end instead of padding them: the same rows, steps and gradients. "
        "Without it, where attention keeps them apart by their boundaries.",
    )
    digest: str | None = Field(None, description="Refuse other rows than these. Written by forge into the lock.")

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say what a key of another tool is called here."""
        said = advice(key, DATA_KEYS)
        return Hint(*said) if said else None

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        yield from super().contradictions()
        if not self.path and not self.sources:
            yield Mistake('there is no source of rows; write path = "…" or one or more [[data.sources]]')
        if self.path and self.sources:
            yield Mistake("path and [[data.sources]] are two ways to say the same; keep one", ("path", "sources"))
        if any(not source.path for source in self.sources):
            yield Mistake("every [[data.sources]] needs a path", ("sources",))
        own = (Source.model_fields.keys() - {"path", "max_rows"}) & self.model_fields_set
        if self.sources and own:
            names = tuple(sorted(own))
            yield Mistake(f"{', '.join(names)} belong into each [[data.sources]], since there are several", names)
        yield from self._of_mixture()
        held_out = tuple(key for key in ("eval_path", "eval_split", "eval_size") if getattr(self, key) is not None)
        if len(held_out) > 1:
            yield Mistake(f"{' and '.join(held_out)} contradict each other; keep one", held_out)
        if self.streaming and self.eval_size is not None:
            what = "eval_size needs all rows, and streaming never sees them; use eval_path or eval_split"
            yield Mistake(what, ("eval_size", "streaming"))
        if self.on_bad_row != "drop" and self.max_bad_rows != type(self).model_fields["max_bad_rows"].default:
            what = 'max_bad_rows has no effect: no row is dropped; write on_bad_row = "drop", or remove it'
            yield Mistake(what, ("max_bad_rows",), by="on_bad_row")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            what = f"min_pixels ({self.min_pixels}) is above max_pixels ({self.max_pixels})"
            yield Mistake(f"{what}; change one", ("min_pixels", "max_pixels"))
        if self.mask_empty_reasoning and self.train_on == "all":
            what = 'mask_empty_reasoning has no effect: train_on = "all" takes everything; remove one'
            yield Mistake(what, ("mask_empty_reasoning", "train_on"))

    def _of_mixture(self) -> Iterator[Mistake]:
        """Yield what is wrong with shares, and with rows that are drawn."""
        shares = [source.share for source in self.sources if source.share is not None]
        if self.share is not None and not self.sources:
            yield Mistake("share is a part of a mixture, and there is one source; remove it", ("share",))
        elif shares and len(shares) < len(self.sources):
            yield Mistake("share stands in some sources and not in others; write it in all", ("sources",))
        elif shares and any(source.weight != 1 for source in self.sources):
            yield Mistake("weight and share say the same in two ways; keep one", ("sources",))
        if self.stopping_strategy and not shares:
            yield Mistake("stopping_strategy has no effect: no source has a share", ("stopping_strategy",))
        if self.streaming and any(source.draw_rows for source in (self, *self.sources)):
            what = "draw_rows needs all rows, and streaming never sees them; write max_rows"
            yield Mistake(what, ("draw_rows" if self.draw_rows else "sources", "streaming"))
        if any(source.draw_rows and source.max_rows for source in (self, *self.sources)):
            what = "max_rows takes the first rows and draw_rows any of them; keep one"
            yield Mistake(what, ("max_rows" if self.max_rows else "sources",))

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the chat template; empty where the job gives none."""
        return self.chat_template_kwargs or {}

    def all_sources(self) -> list[Source]:
        """The sources of training rows, one or several."""
        if self.sources:
            return list(self.sources)
        return [Source(**{key: getattr(self, key) for key in Source.model_fields})]


def pieces_of(text: str) -> Pieces:
    """Cut a text at its columns. ``{{`` and ``}}`` are braces that stand for themselves.

    Raises:
        ValueError: A brace is open, or has no name in it.

    Example:
        >>> pieces_of("Q: {question} {{}}")
        (('Q: ', 'question'), (' {}', None))
    """
    pieces: list[tuple[str, str | None]] = []
    before, end = "", 0
    for found in _PIECE.finditer(text):
        before += text[end : found.start()]
        end = found.end()
        if found[0] in ("{{", "}}"):
            before += found[0][0]
        elif found[1] is None:
            raise ValueError(f"a {found[0]!r} at character {found.start() + 1} has no partner")
        elif not found[1].strip():
            raise ValueError(f"the braces at character {found.start() + 1} name no column")
        else:
            pieces.append((before, found[1]))
            before = ""
    return (*pieces, (before + text[end:], None))
