"""Tokenised rows on disk.

Rows are written to an Arrow file as they are made and read back memory-mapped, so a data set larger than memory needs
no more of it than a small one. Beside it lies a plain list of where each row came from, for the preview and for whoever
looks for the row behind a loss.
"""

from __future__ import annotations

import hashlib
from array import array
from itertools import repeat
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

_BUFFER = 1024


class Store:
    """Writes rows of one split; :meth:`open` gives them back as a ``datasets.Dataset``.

    Args:
        path: The Arrow file.
        layout: ``"tokens"``, ``"packed"`` or ``"images"``: which columns a row has (see :func:`features`).

    Attributes:
        columns: The names of the columns, in their order.
        lengths: The length of each row.
        supervised: The number of tokens in the loss of each row.
    """

    def __init__(self, path: Path, layout: str = "tokens") -> None:
        from datasets.arrow_writer import ArrowWriter

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.lengths = array("l")
        self.supervised = array("l")
        kinds = features(layout)
        self.columns = tuple(kinds)
        self._schema = kinds.arrow_schema
        # Images that came as bytes make rows large.
        self._buffer = 32 if layout == "images" else _BUFFER
        # A file that a mapped data set may still use is never written to: the new one takes its name when it is whole.
        self._part = path.with_suffix(".part")
        self._writer = ArrowWriter(features=kinds, path=str(self._part))
        self._origins = origins_path(path).open("w", encoding="utf-8")
        self._rows: list[Sequence[Any]] = []

    def add(self, origin: str, *columns: Any) -> None:
        """Add a row: its place, then the values of the columns."""
        labels = columns[1]
        self.lengths.append(len(columns[0]))
        self.supervised.append(len(labels) - list(labels).count(-100))
        self._origins.write(origin.replace("\n", " ") + "\n")
        self._rows.append(columns)
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

    def open(self) -> Any:
        """Return the rows, memory-mapped."""
        from datasets import Dataset

        return Dataset.from_file(str(self.path))

    def fingerprints(self) -> Iterator[bytes]:
        """Yield a short hash of each row's tokens and images."""
        import numpy

        table = self.open().data
        images = _hashes(table) if "pictures" in self.columns else repeat([])
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
    take over at that name.
    """
    from datasets import Features, List, Value

    kinds: dict[str, Any] = {name: List(Value("int32")) for name in ("input_ids", "labels")}
    if layout == "packed":
        kinds["seq_lengths"] = List(Value("int32"))
    elif layout == "images":
        picture = {"path": Value("string"), "bytes": Value("large_binary"), "sha256": Value("string")}
        picture |= {name: Value("int32") for name in ("width", "height", "start", "end")}
        kinds |= {"text": Value("large_string"), "turns": Value("large_string")}
        kinds["pictures"] = List(picture)
    return Features(kinds)


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
        for column in ("input_ids", "labels"):
            lengths, values = hashlib.sha256(), hashlib.sha256()
            for batch in table.select([column]).to_batches():
                rows = batch.column(0)
                lengths.update(rows.value_lengths().to_numpy(zero_copy_only=False).astype("<i4").tobytes())
                values.update(numpy.ascontiguousarray(rows.flatten().to_numpy(zero_copy_only=False), "<i4").tobytes())
            sha.update(lengths.digest() + values.digest())
        if "pictures" in table.column_names:
            sha.update("\n".join(" ".join(row) for row in _hashes(table)).encode())
    return sha.hexdigest()
