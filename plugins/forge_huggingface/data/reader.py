"""Read, convert and render one source.

This is the path that every row takes, whether rows are prepared beforehand, streamed, or held out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from forge.api import read_by
from forge.text.units import counted
from forge_huggingface.data.characters import unfit
from forge_huggingface.data.conversion.formats import detect
from forge_huggingface.data.weight import blocks
from forge_huggingface.rendering.templates import missing
from forge_huggingface.rows import (
    AlienRow,
    BadRow,
    Completion,
    Conversation,
    Ids,
    Labelled,
    Message,
    Pair,
    Prompt,
    Rated,
    Record,
    Row,
    Text,
    parts_of,
)
from forge_huggingface.sources.files import kind
from forge_huggingface.sources.sources import iterate
from forge_huggingface.tools import OWN
from forge_huggingface.vision.images import MARK, marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forge.api import Job, Source
    from forge_huggingface.data.conversion.shape import Shape
    from forge_huggingface.data.layout import Layout
    from forge_huggingface.rendering.render import Renderer
    from forge_huggingface.sources.texts import RawRow


_BATCH = 512  # rows given to the tokenizer at once: it works on them in parallel

RenderedRow = tuple[str, Record | BadRow]
"""A row's place, and what became of it."""

WholeRow = tuple[str, "RawRow", Row | BadRow, Record | BadRow]
"""A row's place, the row of the file, forge's own row, and what became of it."""


@dataclass(slots=True)
class Reader:
    """Reads and renders the rows of one source.

    Attributes:
        job: The job.
        source: Where the rows are.
        renderer: Turns them into tokens.
        layout: What is made of them.
        formats: The formats that they may have, in the order of detection; those of the layout unless others are given.
        shape: The format that the first rows showed; None before they are read.
        converses: Whether a row has been read that is a conversation.
        shows: Whether a row has been read that has an image.
        bypasses: Whether a row has been read that asks and answers in plain text, which no template is put around.
        short: How many rows the source has, where that are fewer than are to be drawn.
    """

    job: Job
    source: Source
    renderer: Renderer
    layout: Layout
    formats: Sequence[str] = ()
    shape: Shape | None = field(default=None, init=False)
    converses: bool = field(default=False, init=False)
    shows: bool = field(default=False, init=False)
    bypasses: bool = field(default=False, init=False)
    short: int | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """How to call the source."""
        path = self.source.path
        return path if isinstance(path, str) else ", ".join(path or ())

    def rows(self, *, limit: int | None = None, batch: int = _BATCH) -> Iterator[RenderedRow]:
        """Yield each row's place and what became of it."""
        for origin, _, _, rendered in self.whole(limit=limit, batch=batch):
            yield origin, rendered

    def whole(self, *, limit: int | None = None, batch: int = _BATCH) -> Iterator[WholeRow]:
        """Yield each row on every stage of its way: its place, as it is in the file, as forge's own, and rendered."""
        limits = [each for each in (limit, self.source.max_rows) if each is not None]
        for block in blocks(islice(self._raw(), min(limits, default=None)), batch):
            yield from self._render(block)

    def _raw(self) -> Iterator[tuple[str, RawRow]]:
        """Yield the rows of the source, or those that are drawn of it."""
        raw = iterate(self.job, self.source, streaming=self.job.data.streaming)
        if self.source.draw_rows is None:
            yield from raw
            return
        count = sum(1 for _ in iterate(self.job, self.source))
        rng = random.Random(f"{self.job.train.options.get('seed', 42)} {self.name} {self.source.name}")  # noqa: S311
        self.short = count if count < self.source.draw_rows else None
        chosen = frozenset(rng.sample(range(count), min(count, self.source.draw_rows)))
        yield from (row for at, row in enumerate(raw) if at in chosen)

    def _render(self, block: Sequence[tuple[str, RawRow]]) -> Iterator[WholeRow]:
        converted: list[Any] = []
        read = [raw for _, raw in block if not isinstance(raw, BadRow)]
        if self.shape is None and read:
            self.shape = detect(self.source, read, self.name, self.formats or self.layout.formats, self.layout.whose)
        for origin, raw in block:
            if isinstance(raw, BadRow):
                converted.append(raw)
                continue
            assert self.shape is not None
            try:
                row = self._instructed(self._placed(self.shape.convert(raw, filled=_filled(origin)), origin))
                if (bad := unfit(row)) is not None:
                    raise bad
            except AlienRow as alien:
                raise alien.at(origin) from alien
            except BadRow as bad:
                converted.append(bad)
            else:
                if self.layout.templated and self.renderer.template is None and _has_messages(row):
                    raise missing(self.shape.format)
                converted.append(row)
        usable = [row for row in converted if not isinstance(row, BadRow)]
        # Each row may wait for images, and one that is bad is told before others are waited for.
        shares = [[row] for row in usable] if self.renderer.sees else [usable]
        results = chain.from_iterable(self.layout.render(self.renderer, share) for share in shares)
        for (origin, raw), row in zip(block, converted, strict=True):
            given = {} if isinstance(raw, BadRow) else raw
            yield origin, given, row, row if isinstance(row, BadRow) else self._embedded(row, next(results))

    def _embedded(self, row: Row, made: Record | BadRow) -> Record | BadRow:
        """Return what became of a row, refused if it has a token that the model has no embedding for."""
        if isinstance(row, Ids):
            return self.renderer.foreign(row.input_ids, given=True) or made
        if isinstance(made, BadRow):
            return made
        sequences = (part.input_ids for piece in (made, *made.rest) for part in piece.parts)
        return next((bad for ids in sequences if (bad := self.renderer.foreign(ids))), made)

    def _placed(self, row: Row, origin: str) -> Row:
        """Return a row that knows where its images' paths start, and refuse images that nobody would see."""
        if isinstance(row, Pair):
            return replace(row, chosen=self._seen(row.chosen, origin), rejected=self._seen(row.rejected, origin))
        if isinstance(row, Rated):
            return replace(row, row=self._seen(row.row, origin))
        if isinstance(row, Labelled):
            return replace(row, row=cast("Conversation | Text", self._placed(row.row, origin)))
        if isinstance(row, Prompt):
            if not self.renderer.sees:
                return row
            parts = (
                ()
                if isinstance(row.prompt, str)
                else (part for each in row.prompt for part in parts_of(each["content"]))
            )
            self.shows = self.shows or bool(row.images) or any(part["type"] == "image" for part in parts)
            return replace(row, folder=self._folder(origin))
        return row if isinstance(row, Text | Ids) else self._seen(row, origin)

    def _instructed(self, row: Row) -> Row:
        """Return a row with the job's system message, if it is a conversation and has none of its own."""
        if isinstance(row, Pair):
            return replace(row, chosen=self._told(row.chosen), rejected=self._told(row.rejected))
        if isinstance(row, Rated):
            return replace(row, row=self._told(row.row))
        if isinstance(row, Labelled):
            return replace(row, row=cast("Conversation | Text", self._instructed(row.row)))
        if isinstance(row, Prompt):
            if isinstance(row.prompt, str):
                self.bypasses = True
                return row
            self.converses = True
            return replace(row, prompt=(*self._opening(row.prompt), *row.prompt))
        return row if isinstance(row, Text | Ids) else self._told(row)

    def _told(self, row: Conversation | Completion) -> Conversation | Completion:
        if isinstance(row, Completion):
            self.bypasses = True
            return row
        self.converses = True
        if taken := OWN & row.extra.keys():
            named = ", ".join(sorted(taken))
            raise BadRow(f"has {named} in chat_template_kwargs", "forge passes it itself", "remove it there")
        opening = self._opening(row.messages)
        learned = (*(None for _ in opening), *row.learned) if row.learned else ()
        return replace(row, messages=(*opening, *row.messages), start=row.start + len(opening), learned=learned)

    def _opening(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        system = self.job.data.system_prompt
        if system is None or any(message["role"] in ("system", "developer") for message in messages):
            return ()
        content = [{"type": "text", "text": system}] if isinstance(messages[0]["content"], list) else system
        return ({"role": "system", "content": content},)

    def _seen(self, row: Conversation | Completion, origin: str) -> Conversation | Completion:
        if not isinstance(row, Conversation):
            return row
        if not row.pictures:
            if self.renderer.sees and (count := marks(row.messages)):
                places = f"{counted(count, 'place')} for an image"
                do = 'name the column of the images: [data] columns = { images = "…" }; or take the mark out'
                raise BadRow(f"has {places} ({MARK}) and no image", None, do)
            return row
        if not self.renderer.sees:
            raise AlienRow("has images", "this model takes text only", "take a vision model, or rows without images")
        self.shows = True
        return replace(row, folder=self._folder(origin))

    def _folder(self, origin: str) -> Path | None:
        """Return the folder of the file that a row came from, or None for a row of the hub."""
        file = self.job.path(origin.rpartition(":")[0])
        return file.parent.resolve() if file.is_file() else None

    def to_json(self) -> dict[str, Any]:
        """Return what was found, for the event."""
        shape = self.shape
        return {
            "path": self.name,
            "split": self.source.split,
            "weight": self.source.weight,
            "share": self.source.share,
            "format": shape.format if shape else None,
            "columns": shape.used if shape else {},
            "ignored": list(shape.ignored) if shape else [],
        }


def _filled(origin: str) -> bool:
    """Tell whether a row went through Arrow, which makes all objects of a column alike by nulls.

    Rows of the hub do: what is no file comes from there. Those of a plugin's reader are taken so too, for databases.
    """
    return _through_arrow(origin.rpartition(":")[0])


@lru_cache(maxsize=64)
def _through_arrow(name: str) -> bool:
    return read_by(name) is not None or kind(Path(name)) in (None, ".parquet", ".arrow")


def _has_messages(row: Row) -> bool:
    """Tell whether a row has messages, which only a chat template turns into text."""
    if isinstance(row, Pair):
        return _has_messages(row.chosen)
    if isinstance(row, Rated):
        return _has_messages(row.row)
    return isinstance(row, Conversation) or (isinstance(row, Prompt) and not isinstance(row.prompt, str))
