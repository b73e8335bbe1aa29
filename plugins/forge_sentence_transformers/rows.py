"""Rows of two texts or more: read, told by their columns, and counted in tokens."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge.text.units import counted
from forge_huggingface.data.tally import Tally
from forge_huggingface.rows import BadRow, LongRow, Record, Rendered
from forge_huggingface.sources.sources import iterate
from forge_sentence_transformers.shapes import ALIASES, KINDS, NUMBERED, Shape, Texts, kind_of, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from forge.api import Job, Source


@dataclass(slots=True)
class TextReader:
    """Reads the rows of one source.

    Attributes:
        job: The job.
        source: Where the rows are.
        used: forge's name of each column that was taken, and the file's.
        ignored: Columns that were not taken.
    """

    job: Job
    source: Source
    used: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How to call the source."""
        path = self.source.path
        return path if isinstance(path, str) else ", ".join(path or ())

    def rows(self) -> Iterator[tuple[str, Texts | BadRow]]:
        """Yield each row's place and what it is."""
        for origin, raw in iterate(self.job, self.source):
            if isinstance(raw, BadRow):
                yield origin, raw
                continue
            try:
                yield origin, self.convert(raw)
            except BadRow as bad:
                yield origin, bad

    def convert(self, raw: Mapping[str, Any]) -> Texts:
        """Turn a row of the source into texts. Raises :class:`BadRow`."""
        anchor, positive = (self._text(raw, name) for name in ("anchor", "positive"))
        negatives: list[str] = []
        numbered = sorted((int(found[1]), name) for name in raw if (found := NUMBERED.fullmatch(name)))
        for name in (self._column(raw, "negative"), *(name for _, name in numbered)):
            if name is None or raw[name] is None:
                continue
            self.used[name if NUMBERED.fullmatch(name) else "negative"] = name
            texts = texts_of(raw[name])
            if texts is None or not all(text.strip() for text in texts):
                raise BadRow(f"has no text in {name!r}", f"it is {_short(raw[name])}")
            negatives += texts
        rating = self._rating(raw)
        if rating is not None and negatives:
            raise BadRow("has negatives and a number", "a row is rated, or has texts that do not fit, and not both")
        for name in raw:
            if name not in self.used.values():
                self.ignored[name] = None
        return Texts(anchor, positive, tuple(negatives), rating)

    def _column(self, raw: Mapping[str, Any], name: str) -> str | None:
        """Return the source's column for one of forge's names; None if it has none."""
        given = self.source.columns
        if name in given:
            if given[name] not in raw:
                raise BadRow(f"has no column {given[name]!r}", f"its columns are {', '.join(map(repr, raw))}")
            return given[name]
        return next((each for each in ALIASES[name] if each in raw and each not in given.values()), None)

    def _text(self, raw: Mapping[str, Any], name: str) -> str:
        column = self._column(raw, name)
        if column is None:
            there = ", ".join(map(repr, raw)) or "none"
            known = ", ".join(ALIASES[name])
            do = f'name it: [data] columns = {{ {name} = "…" }}; forge knows {known}'
            raise BadRow(f"has no column for {name}", f"its columns are {there}", do)
        text = raw[column]
        if not isinstance(text, str) or not text.strip():
            raise BadRow(f"has no text in {column!r}", f"it is {_short(text)}")
        self.used[name] = column
        return text

    def _rating(self, raw: Mapping[str, Any]) -> float | None:
        for name in ("score", "label"):
            column = self._column(raw, name)
            if column is None or raw[column] is None:
                continue
            value = raw[column]
            if isinstance(value, str):
                try:
                    value = float(value)
                except ValueError:
                    raise BadRow(f"has no number in {column!r}", f"it is {_short(value)}") from None
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise BadRow(f"has no number in {column!r}", f"it is {_short(value)}")
            self.used[name] = column
            return float(value)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return what was found, for the event."""
        return {
            "path": self.name,
            "split": self.source.split,
            "weight": self.source.weight,
            "columns": dict(self.used),
            "ignored": list(self.ignored),
        }


def check_columns(job: Job) -> None:
    """Refuse names in ``[data] columns`` that are none of forge's. Raises :class:`DataError`."""
    for source in job.data.all_sources():
        if strange := sorted(source.columns.keys() - ALIASES.keys()):
            why = f'{strange[0]!r} is no name of a column under method = "{job.train.method}"'
            raise DataError("[data] columns cannot be used", why, f"the names are {', '.join(ALIASES)}")


@dataclass(slots=True)
class Rows:
    """The rows of one split.

    Attributes:
        tally: What became of all rows.
        texts: The rows.
        origins: Where each came from.
        lengths: The tokens of the longest text of each.
        starts: The first row of each source.
    """

    tally: Tally
    texts: list[Texts] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


def read(job: Job, readers: Sequence[TextReader], tokenizer: Any, limit: int, *, joined: bool) -> Rows:
    """Read all rows, and count their tokens as the model will see them.

    Args:
        job: The job.
        readers: Read the sources.
        tokenizer: The tokenizer.
        limit: The most tokens of a text, or of two that the model reads together.
        joined: Whether the model reads two texts as one, as a reranker does.

    Raises:
        DataError: Rows cannot be used, and the job does not allow for it.
    """
    found = Rows(Tally(job.data))
    left = job.data.max_rows
    for reader in readers:
        found.starts.append(len(found.texts))
        for batch in _batches(_limited(reader.rows(), left)):
            good = [row for _, row in batch if isinstance(row, Texts)]
            counts = iter(_lengths(good, tokenizer, joined=joined))
            for origin, row in batch:
                result: Record | BadRow = row if isinstance(row, BadRow) else _record(next(counts), limit, job)
                if found.tally.see(origin, result, None) and isinstance(row, Texts) and isinstance(result, Record):
                    found.texts.append(row)
                    found.origins.append(origin)
                    found.lengths.append(result.length)
            left = None if left is None else left - len(batch)
    found.tally.check(done=True)
    names = ", ".join(reader.name for reader in readers)
    if not found.texts:
        raise DataError(f"no usable rows in {names}", f"{found.tally.read} were read and {found.tally.bad} dropped")
    return found


def _limited(rows: Iterator[tuple[str, Texts | BadRow]], limit: int | None) -> Iterator[tuple[str, Texts | BadRow]]:
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            return
        yield row


def _batches(rows: Iterable[Any], size: int = 512) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _lengths(rows: Sequence[Texts], tokenizer: Any, *, joined: bool) -> Iterator[list[int]]:
    """Yield the number of tokens of each text of each row, or of each pair of texts."""
    if joined:
        pairs = [(row.anchor, other) for row in rows for other in row.all[1:]]
        sizes = [len(ids) for ids in tokenizer(pairs, verbose=False)["input_ids"]] if pairs else []
    else:
        texts = [text for row in rows for text in row.all]
        sizes = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
    each = iter(sizes)
    for row in rows:
        yield [next(each) for _ in row.all[int(joined) :]]


def _record(lengths: Sequence[int], limit: int, job: Job) -> Record | BadRow:
    """Return a row as the tally counts it: its tokens matter there by their number alone."""
    longest = max(lengths)
    if longest > limit and job.data.on_long_row in {"drop", "error"}:
        do = 'raise it, shorten the text, or set on_long_row = "truncate" or "drop"'
        return LongRow(f"has {longest} tokens", f"max_seq_length is {limit}", do)
    parts = []
    for length in lengths:
        ids = [0] * min(length, limit)
        parts.append(Rendered(ids, ids, length, ""))
    return Record(tuple(parts), {})


def shape_of(rows: Sequence[Texts], readers: Sequence[TextReader]) -> Shape:
    """Return what rows are. Raises :class:`DataError` where some are rated and others not."""
    rated = [row.rating for row in rows if row.rating is not None]
    if rated and len(rated) < len(rows):
        raise DataError(
            f"{counted(len(rows) - len(rated), 'row')} of {len(rows)} have no score and no label",
            "a loss takes rows of one kind",
            "give each a number, or take those without into a run of its own",
        )
    if rated:
        return Shape(kind_of(rated, label=all("score" not in reader.used for reader in readers)))
    counts = {len(row.negatives) for row in rows}
    if len(counts) > 1:
        most, least = max(counts), min(counts)
        raise DataError(
            f"rows have from {least} to {most} negatives",
            "a batch takes as many of each row",
            "give each row as many, or leave the column out",
        )
    negatives = counts.pop()
    return Shape("triplets" if negatives else "pairs", negatives)


def columns(row: Texts, shape: Shape) -> dict[str, Any]:
    """Return a row as the trainer takes it, its columns in the order that losses go by."""
    named: dict[str, Any] = dict(zip(shape.columns, row.all, strict=True))
    if shape.rated:
        named["label"] = row.rating
    return named


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


def told(shape: Shape) -> str:
    """Return the kind of rows for people."""
    more = f", {shape.negatives} of them" if shape.negatives > 1 else ""
    return f"{KINDS[shape.kind]}{more}"
