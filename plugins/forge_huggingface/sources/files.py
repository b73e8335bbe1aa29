"""Read one data file row by row.

Generic loaders report a broken file as a failed cast somewhere in a cache. These readers know the line they are at, so
a broken line is named by file and number. They hold one row, one batch or (JSON that is not a row a line) one file in
memory.
"""

from __future__ import annotations

import csv
import io
import zlib
from typing import IO, TYPE_CHECKING

from forge.api import DataError, no_text
from forge_huggingface.rows import BadRow
from forge_huggingface.sources.arrow_rows import read_arrow, read_parquet
from forge_huggingface.sources.json_rows import read_lines, read_whole
from forge_huggingface.sources.texts import LARGEST, PACKED, RawRow, decode, opened, other_encoding, too_large, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
SUFFIXES = (*_TEXTS, ".parquet", ".arrow")
"""What can be read; files of text also with one of :data:`PACKED` at their end."""

SUPPORTED = f"{', '.join(SUFFIXES)}; all but the last two also as {' and '.join(PACKED)}"

_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_LFS = b"version https://git-lfs.github.com/spec/"


def kind(path: Path) -> str | None:
    """Return the suffix that decides how a file is read, in lower case, or None if it cannot be read."""
    name = path.name.lower()
    for suffix in PACKED:
        if name.endswith(suffix):
            return next((text for text in _TEXTS if name.endswith(text + suffix)), None)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read(path: Path, name: str) -> Iterator[tuple[str, RawRow]]:
    """Yield ``(origin, row)`` for every row of a file.

    Args:
        path: The file.
        name: How to call it in origins and errors.

    Raises:
        DataError: The file as a whole cannot be read, or holds no row.
    """
    if fault := no_text(path):
        raise DataError(f"{path} cannot be used", fault, "rename the file or folder")
    reader = {
        ".jsonl": read_lines,
        ".ndjson": read_lines,
        ".json": read_whole,
        ".csv": _csv,
        ".tsv": _csv,
        ".txt": _txt,
        ".parquet": read_parquet,
        ".arrow": read_arrow,
    }.get(kind(path) or "")
    if reader is None:
        raise DataError(
            f"{name} cannot be read",
            f"its suffix is {path.suffix or 'missing'}",
            "save it as CSV or Parquet" if path.suffix.lower() in _SPREADSHEETS else f"use one of {SUPPORTED}",
        )
    count = 0
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise DataError(f"{name} is not here", "it is a pointer of Git LFS to its rows", "run git lfs pull")
        for number, row in reader(path, name):
            count += 1
            yield f"{name}:{number}", row
    except (EOFError, OSError, zlib.error) as error:
        do = "compress it again, or unpack it" if path.suffix.lower() in PACKED else None
        raise DataError(f"{name} cannot be read", str(error), do) from error
    if not count:
        raise DataError(f"{name} holds no rows", "the file is empty", "write rows into it, or remove it from the job")


def _txt(path: Path, _: str) -> Iterator[tuple[int, RawRow]]:
    with unpacked(path) as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        yield 1, too_large("cut it into several files")
        return
    text = other_encoding(raw[:4]) or decode(raw)
    if isinstance(text, str) and not text.strip():
        text = BadRow("has no text", "the file is empty", "write a text into it, or remove it")
    yield 1, text if isinstance(text, BadRow) else {"text": text}


def _lines(file: IO[str], name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(LARGEST + 1):
        number += 1
        if len(line) > LARGEST:
            raise too_large().at(f"{name}:{number}")
        yield line


def _csv(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    # The default limit of 131072 characters a field is shorter than a long document.
    csv.field_size_limit(LARGEST)
    delimiter = "\t" if kind(path) == ".tsv" else ","
    with io.TextIOWrapper(opened(path, name), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_lines(file, name), delimiter=delimiter, strict=True)
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
