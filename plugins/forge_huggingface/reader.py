"""Read, convert and render one source.

This is the path that every row takes, whether rows are prepared beforehand, streamed, or held out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.formats import Shape, detect
from forge_huggingface.rows import BadRow, Conversation, Rendered
from forge_huggingface.sources import iterate
from forge_huggingface.templates import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from forge.job import Job, Source
    from forge_huggingface.readers import RawRow
    from forge_huggingface.render import Renderer

_BATCH = 512  # rows given to the tokenizer at once: it works on them in parallel

RenderedRow = tuple[str, Rendered | BadRow]
"""A row's place, and what became of it."""


@dataclass(slots=True)
class Reader:
    """Reads and renders the rows of one source."""

    job: Job
    source: Source
    renderer: Renderer
    shape: Shape | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """How to call the source."""
        path = self.source.path
        return path if isinstance(path, str) else ", ".join(path or ())

    def rows(self, *, limit: int | None = None, batch: int = _BATCH) -> Iterator[RenderedRow]:
        """Yield each row's place and what became of it."""
        raw = islice(iterate(self.job, self.source, streaming=self.job.data.streaming), limit)
        while block := list(islice(raw, batch)):
            yield from self._render(block)

    def _render(self, block: Sequence[tuple[str, RawRow]]) -> Iterator[RenderedRow]:
        converted: list[Any] = []
        for origin, raw in block:
            if isinstance(raw, BadRow):
                converted.append(raw)
                continue
            if self.shape is None:
                self.shape = detect(self.source.format, self.source.columns, raw, self.name)
                self._check_template(self.shape, raw)
            try:
                row = self.shape.convert(raw)
                if isinstance(row, Conversation) and row.pictures:
                    if not self.renderer.sees:
                        raise DataError("has images", "this model takes text only",
                                        "take a vision model, or rows without images")  # fmt: skip
                    row = replace(row, folder=self._folder(origin))
                converted.append(row)
            except BadRow as bad:
                converted.append(bad)
            except DataError as error:
                mark = "" if error.what.startswith("has ") else ":"
                raise DataError(f"{origin}{mark} {error.what}", error.why, error.do) from error
        results = iter(self.renderer.render([row for row in converted if not isinstance(row, BadRow)]))
        for (origin, _), row in zip(block, converted, strict=True):
            yield origin, row if isinstance(row, BadRow) else next(results)

    def _folder(self, origin: str) -> Path | None:
        """Return the folder of the file that a row came from, or None for a row of the hub."""
        file = self.job.path(origin.rpartition(":")[0])
        return file.parent.resolve() if file.is_file() else None

    def _check_template(self, shape: Shape, raw: dict[str, Any]) -> None:
        plain = shape.format == "text" or (
            shape.format == "prompt-completion" and isinstance(raw.get(shape.columns["prompt"]), str)
        )
        if not plain and self.renderer.template is None:
            raise missing(shape.format)

    def to_json(self) -> dict[str, Any]:
        """Return what was found, for the event."""
        shape = self.shape
        return {
            "path": self.name,
            "split": self.source.split,
            "weight": self.source.weight,
            "format": shape.format if shape else None,
            "columns": dict(shape.columns) if shape else {},
            "ignored": list(shape.ignored) if shape else [],
        }
