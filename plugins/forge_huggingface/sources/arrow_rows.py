"""Read rows from Parquet and Arrow files, whose values may be none that Python has, and far larger than the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import DataError, first_line
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forge_huggingface.sources.texts import RawRow


_ROWS = 256
"""How many rows are made at once."""

_BYTES = 2**30
"""How much they may take at once, as far as the file says it."""


def read_parquet(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    """Yield the number and the row of each row of a Parquet file.

    Raises:
        DataError: The file is not whole.
    """
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _refuse_twins(file.schema_arrow.names, name)
            for group in range(file.num_row_groups):
                count = _at_once(file.metadata.row_group(group))
                for batch in file.iter_batches(batch_size=count, row_groups=[group]):
                    for row in _rows_of(batch):
                        number += 1
                        yield number, row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name} is not a whole Parquet file", first_line(error), "make or fetch it again") from error


def read_arrow(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    """Yield the number and the row of each row of an Arrow file, of either layout.

    Raises:
        DataError: The file is not whole.
    """
    import pyarrow

    number = 0
    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                file = pyarrow.ipc.open_file(source)
                batches = (file.get_batch(index) for index in range(file.num_record_batches))
            except pyarrow.ArrowInvalid:  # not the file layout; `datasets` writes the stream layout
                source.seek(0)
                file = pyarrow.ipc.open_stream(source)
                batches = iter(file)
            _refuse_twins(file.schema.names, name)
            for batch in batches:
                batch.validate()
                for row in _rows_of(batch):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name} is not a whole Arrow file", first_line(error), "make or fetch it again") from error


def _refuse_twins(columns: list[str], name: str) -> None:
    if twins := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"{name} has the column {twins[0]!r} twice", "one would be lost", "rename one of them")


def _at_once(group: Any) -> int:
    """Return how many rows of a row group are made at once.

    Of a dictionary a file holds each value once, and of runs only their length: so a value may be as large as all of
    its column in the file, and a row may have many.
    """
    most = _ROWS
    for index in range(group.num_columns if group.num_rows else 0):
        column = group.column(index)
        largest = column.total_uncompressed_size if column.has_dictionary_page else 0
        each = 16 * column.num_values // group.num_rows
        most = min(most, _BYTES // max(1, largest, each))
    return max(1, most)


def _rows_of(batch: Any) -> Iterator[RawRow]:
    for start in range(0, batch.num_rows, _ROWS):
        part = batch.slice(start, _ROWS)
        try:
            # Offsets and texts of a damaged file are followed wherever they lead unless they are looked at before.
            part.validate(full=True)
            rows = part.to_pylist()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - one value of them all, or several: which it is, each row tells
            rows = [_row_of(part.slice(at, 1)) for at in range(part.num_rows)]
        yield from rows


def _row_of(part: Any) -> RawRow:
    row = {}
    for column, values in zip(part.schema.names, part.columns, strict=True):
        try:
            values.validate(full=True)
            (row[column],) = values.to_pylist()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - what a value that Python has not raises is of any kind
            # Dates beyond the year 9999, spans of a million years, texts that are no UTF-8, zones that nobody knows.
            return BadRow(f"has a value in {column!r} that cannot be read", first_line(error), "mend or remove it")
    return row
