"""Tokenised rows on disk.

Rows are written to an Arrow file as they are made and read back memory-mapped, so a data set larger than memory needs
no more of it than a small one. Beside it lies a plain list of where each row came from, for the preview and for whoever
looks for the row behind a loss.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from itertools import repeat
from typing import TYPE_CHECKING, Any, Self

from forge_huggingface.rows import set_apart
from forge_huggingface.vision.prompts import hung

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from forge_huggingface.rows import Record


_BUFFER = 1024
_PROMPT = ("prompt", "columns", "origin")
_ASKED = frozenset({"prompt", "prompt_ids", "chosen_ids", "chosen_input_ids", "completion_ids"})
_DERIVED = frozenset({"text", "turns", "pictures", "seq_lengths", "chosen_text", "rejected_text", "origin"})
"""Columns that follow from others, that a digest takes in another form, or that change with a file's name."""


class Store:
    """Writes rows of one split; :meth:`open` gives them back as a ``datasets.Dataset``.

    Args:
        path: The Arrow file.
        layout: Which columns a row has: see :func:`features`.

    Attributes:
        columns: The names of the columns, in their order.
        lengths: The length of each row's longest sequence.
        tokens: The number of tokens of each row.
        supervised: The number of tokens in the loss of each row.
        starts: For each row of a file, which may have become several, the first of these.
    """

    def __init__(self, path: Path, layout: str = "tokens") -> None:
        from datasets.arrow_writer import ArrowWriter

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.lengths = array("l")
        self.tokens = array("l")
        self.supervised = array("l")
        self.starts = array("l")
        kinds = features(layout)
        self.columns = tuple(kinds)
        self._schema = kinds.arrow_schema
        # Images that came as bytes make rows large.
        self._buffer = 32 if "pictures" in kinds else _BUFFER
        # A file that a mapped data set may still use is never written to: the new one takes its name when it is whole.
        self._part = path.with_suffix(".part")
        self._writer = ArrowWriter(features=kinds, path=str(self._part))
        self._origins = origins_path(path).open("w", encoding="utf-8")
        self._rows: list[Sequence[Any]] = []

    def take(self, origin: str, record: Record) -> None:
        """Add a row of a file, as one row or as the several that it has become."""
        self.starts.append(len(self))
        for place, piece in record.pieces(origin):
            self.add(place, piece.columns, piece.length, piece.supervised, piece.tokens)

    def pieces(self, rows: Sequence[int]) -> Sequence[int]:
        """Return what rows of the files have become, in their order."""
        if len(self.starts) == len(self):
            return rows
        ends = [*self.starts[1:], len(self)]
        return [piece for row in rows for piece in range(self.starts[row], ends[row])]

    def add(self, origin: str, columns: Mapping[str, Any], length: int, supervised: int, tokens: int) -> None:
        """Add a row.

        Args:
            origin: Its place.
            columns: Its values by column.
            length: The number of tokens of its longest sequence.
            supervised: The number of its tokens in the loss.
            tokens: The number of all its tokens.
        """
        self.lengths.append(length)
        self.tokens.append(tokens)
        self.supervised.append(supervised)
        self._origins.write(origin.replace("\n", " ") + "\n")
        self._rows.append([origin if name == "origin" else columns[name] for name in self.columns])
        if len(self._rows) >= self._buffer:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            columns = [
                pyarrow.array(list(values), field.type)
                for field, values in zip(self._schema, zip(*self._rows, strict=True), strict=True)
            ]
            self._writer.write_table(pyarrow.table(columns, schema=self._schema))
            self._rows.clear()

    def __len__(self) -> int:
        return len(self.lengths)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origins.close()
        if kind is None and len(self):
            self._flush()
            self._writer.finalize()
            self._part.replace(self.path)
        else:
            self._writer.close()
            self._part.unlink(missing_ok=True)

    def open(self, *, stored: bool = False) -> Any:
        """Return the rows, memory-mapped: as trainers take them, or as they are stored."""
        from datasets import Dataset

        rows = Dataset.from_file(str(self.path))
        return rows.with_transform(prompts) if self.columns[:3] == _PROMPT and not stored else rows

    def fingerprints(self) -> Iterator[bytes]:
        """Yield a short hash of each row's tokens and images, or of what it asks."""
        import numpy

        table = self.open().data
        images = _hashes(table) if "pictures" in self.columns else repeat([])
        if "input_ids" not in self.columns:
            for batch in table.select([name for name in self.columns if name in _ASKED]).to_batches():
                for row, shown in zip(batch.to_pylist(), images, strict=False):
                    yield hashlib.blake2b(repr((sorted(row.items()), *shown)).encode(), digest_size=12).digest()
            return
        for batch in table.select(["input_ids"]).to_batches():
            rows = batch.column(0)
            values = numpy.ascontiguousarray(rows.flatten().to_numpy(zero_copy_only=False), "<i4")
            ends = rows.value_lengths().to_numpy(zero_copy_only=False).cumsum()
            for part, seen in zip(numpy.split(values, ends[:-1]), images, strict=False):
                yield hashlib.blake2b(part.tobytes() + "".join(seen).encode(), digest_size=12).digest()

    def origins(self) -> list[str]:
        """Return where each row came from."""
        return origins_path(self.path).read_text(encoding="utf-8").split("\n")[:-1]


def origins_path(path: Path) -> Path:
    """Return the file that says where the rows of an Arrow file came from."""
    return path.with_suffix(".origins")


def features(layout: str) -> Any:
    """Return the columns of a layout, as ``datasets`` describes them.

    ``tokens`` has ids and labels, ``packed`` also the lengths of the rows in a row, ``images`` also the text that the
    ids came from, the messages as JSON and the images, none of them decoded. No column is called *images*: TRL would
    take over at that name. ``pairs`` and ``rated`` have the columns of TRL's trainers, ``prompts`` JSON, since the
    columns that reward functions want can be anything, and ``labelled`` its label so: a name, several, or a number.
    """
    from datasets import Features, List, Value

    ids = List(Value("int32"))
    picture = {"path": Value("string"), "bytes": Value("large_binary"), "sha256": Value("string")}
    picture |= {name: Value("int32") for name in ("width", "height", "start", "end")}
    picture["background"] = Value("string")
    kinds: dict[str, dict[str, Any]] = {
        "tokens": {"input_ids": ids, "labels": ids},
        "packed": {"input_ids": ids, "labels": ids, "seq_lengths": ids},
        "images": {
            "input_ids": ids,
            "labels": ids,
            "text": Value("large_string"),
            "turns": Value("large_string"),
            "pictures": List(picture),
        },
        "pairs": {"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": ids},
        "image-pairs": {
            **{
                f"{side}_{name}": kind
                for side in ("chosen", "rejected")
                for name, kind in (("input_ids", ids), ("labels", ids), ("text", Value("large_string")))
            },
            "pictures": List(picture),
        },
        "rated": {"prompt_ids": ids, "completion_ids": ids, "label": Value("bool")},
        "labelled": {"input_ids": ids, "token_types": ids, "target": Value("large_string")},
        "ranked": {"chosen_ids": ids, "rejected_ids": ids, "margin": Value("float64")},
        "prompts": {name: Value("large_string") for name in _PROMPT},
        "image-prompts": {**{name: Value("large_string") for name in _PROMPT}, "pictures": List(picture)},
    }
    return Features(kinds[layout])


def prompts(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return rows of the layout ``prompts`` as trainers take them: prompt, origin, and all columns, set apart."""
    rows = [
        {"origin": origin, **set_apart(json.loads(columns)), "prompt": json.loads(prompt)}
        for prompt, columns, origin in zip(*(batch[name] for name in _PROMPT), strict=True)
    ]
    for row, pictures in zip(rows, batch.get("pictures", ()), strict=False):
        row["prompt"] = hung(row["prompt"], pictures)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _hashes(table: Any) -> Iterator[list[str]]:
    """Yield the hashes of each row's images."""
    for batch in table.select(["pictures"]).to_batches():
        rows = batch.column(0)
        names = rows.flatten().field("sha256").to_pylist()
        at = 0
        for count in rows.value_lengths().to_pylist():
            yield names[at : at + count]
            at += count


def digest(tables: Iterable[Any]) -> str:
    """Return a sha256 over ids, labels and images of Arrow tables, in order, however they are cut into batches."""
    import numpy

    sha = hashlib.sha256()
    for table in tables:
        for column in (name for name in table.column_names if name not in _DERIVED):
            lengths, values = hashlib.sha256(), hashlib.sha256()
            for batch in table.select([column]).to_batches():
                rows = batch.column(0)
                if not hasattr(rows, "value_lengths"):  # no list: a text, a number, a truth value
                    values.update("\n".join(json.dumps(value) for value in rows.to_pylist()).encode())
                    continue
                lengths.update(rows.value_lengths().to_numpy(zero_copy_only=False).astype("<i4").tobytes())
                values.update(numpy.ascontiguousarray(rows.flatten().to_numpy(zero_copy_only=False), "<i4").tobytes())
            sha.update(lengths.digest() + values.digest())
        if "pictures" in table.column_names:
            sha.update("\n".join(" ".join(row) for row in _hashes(table)).encode())
    return sha.hexdigest()
