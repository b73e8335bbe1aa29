"""Read one data file row by row.

Generic loaders report a broken file as a failed cast somewhere in a cache. These readers know the line they are at, so
a broken line is named by file and number. They hold one row, one batch or (JSON arrays only) one file in memory.
"""

from __future__ import annotations

import csv
import gzip
import json
from typing import IO, TYPE_CHECKING, Any, cast

from forge.api import DataError, first_line
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


RawRow = dict[str, Any] | BadRow
"""What a file holds as a row; a :class:`BadRow` where it could not be read."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""What can be read; the text formats also with ``.gz`` at their end."""

SUPPORTED = f"{', '.join(SUFFIXES)}; JSON and CSV also as .gz"


def kind(path: Path) -> str | None:
    """Return the suffix that decides how a file is read, or None if it cannot be read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        found = suffixes[-2] if len(suffixes) > 1 else ""
        return found if found in SUFFIXES[:5] else None
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def read(path: Path, name: str) -> Iterator[tuple[str, RawRow]]:
    """Yield ``(origin, row)`` for every row of a file.

    Args:
        path: The file.
        name: How to call it in origins and errors.

    Raises:
        DataError: The file as a whole cannot be read, or holds no row.
    """
    reader = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
        ".arrow": _arrow,
    }.get(kind(path) or "")
    if reader is None:
        raise DataError(
            f"{name} cannot be read", f"its suffix is {path.suffix or 'missing'}", f"use one of {SUPPORTED}"
        )
    count = 0
    try:
        for number, row in reader(path, name):
            count += 1
            yield f"{name}:{number}", row
    except gzip.BadGzipFile as error:
        raise DataError(f"{name} cannot be read", str(error), "compress it again, or unpack it") from error
    except (EOFError, OSError) as error:
        raise DataError(f"{name} cannot be read", str(error)) from error
    if not count:
        raise DataError(f"{name} holds no rows", "the file is empty", "write rows into it, or remove it from the job")


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _decode(raw: bytes) -> str | BadRow:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return BadRow(
            "is not UTF-8", f"byte 0x{raw[error.start]:02x} at position {error.start + 1}", "save the file as UTF-8"
        )


def _object(value: Any) -> RawRow:
    if isinstance(value, dict):
        return value
    return BadRow("is not a row", f"a JSON object is needed, this is {_type(value)}")


def _type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _jsonl(path: Path, _: str) -> Iterator[tuple[int, RawRow]]:
    with _open(path) as file:
        for number, raw in enumerate(file, 1):
            line = _decode(raw)
            if isinstance(line, BadRow):
                yield number, line
                continue
            if not line.strip():
                continue
            try:
                row = _object(json.loads(line))
            except json.JSONDecodeError as error:
                row = BadRow("is not JSON", f"{error.msg} at column {error.colno}", "mend or remove the line")
            except RecursionError:
                row = BadRow("is not a row", "its JSON is nested too deeply")
            yield number, row


def _json(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    with _open(path) as file:
        text = _decode(file.read())
    if isinstance(text, BadRow):
        raise text.at(name)
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line under the wrong suffix: common, and not ambiguous
            yield from _jsonl(path, name)
            return
        raise DataError(f"{name}:{error.lineno} is not JSON", f"{error.msg} at column {error.colno}") from error
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict):
        if any(
            isinstance(item, list)
            and item
            and isinstance(item[0], dict)
            and "role" not in item[0]
            and "from" not in item[0]
            for item in value.values()
        ):
            keys = ", ".join(map(repr, value))
            raise DataError(
                f"{name} is not a list of rows",
                f"it is one object with {keys}",
                'write an array of objects, or {"data": [...]}',
            )
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{name} is not a list of rows", f"it is {_type(value)}", "write an array of objects")
    for number, item in enumerate(value, 1):
        yield number, _object(item)


def _csv(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    # The default limit of 131072 characters a field is shorter than a long document.
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if kind(path) == ".tsv" else ","
    opened = (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")  # noqa: SIM115 - closed by the `with` below
        if path.suffix.lower() == ".gz"
        else path.open(encoding="utf-8-sig", newline="")
    )
    with opened as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        line = 1
        try:
            header = next(reader, None)
            if header is None:
                return
            if len(set(header)) < len(header) or any(not column.strip() for column in header):
                raise DataError(
                    f"{name} has no usable header",
                    f"its first line is {delimiter.join(header)!r}",
                    "name every column once in the first line",
                )
            line = reader.line_num + 1
            for fields in reader:
                if fields:
                    yield (
                        line,
                        (
                            dict(zip(header, fields, strict=True))
                            if len(fields) == len(header)
                            else BadRow(
                                f"has {len(fields)} fields", f"the header has {len(header)}", "quote the fields"
                            )
                        ),
                    )
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{name}:{line} is not CSV", str(error), "mend the line") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{name} is not UTF-8", f"after line {line}", "save the file as UTF-8") from error


def _parquet(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is not a whole Parquet file", first_line(error), "make or fetch it again") from error


def _arrow(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    import pyarrow

    number = 0
    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                file = pyarrow.ipc.open_file(source)
                batches = (file.get_batch(index) for index in range(file.num_record_batches))
            except pyarrow.ArrowInvalid:  # not the file layout; `datasets` writes the stream layout
                source.seek(0)
                batches = iter(pyarrow.ipc.open_stream(source))
            for batch in batches:
                for start in range(0, batch.num_rows, 256):
                    for row in batch.slice(start, 256).to_pylist():
                        number += 1
                        yield number, row
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is not a whole Arrow file", first_line(error), "make or fetch it again") from error
