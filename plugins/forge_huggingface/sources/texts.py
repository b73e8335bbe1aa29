"""Open files of text: packed or not, in UTF-8 or with an error that says what they are instead."""

from __future__ import annotations

import gzip
import io
import json
from typing import IO, TYPE_CHECKING, Any, cast

from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


RawRow = dict[str, Any] | BadRow
"""What a file holds as a row; a :class:`BadRow` where it could not be read."""

LARGEST = 256 * 2**20
"""The most bytes of a row: what is larger is no row, but a file that is damaged or made to fill the memory."""

PACKED = (".gz", ".zst")
"""Suffixes of packed files of text."""


def unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading its bytes, unpacked where its suffix says that it is packed.

    Raises:
        OSError: It cannot be opened; while reading also EOFError and zlib.error, where it is cut or damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
    return path.open("rb")


def opened(path: Path, name: str) -> IO[bytes]:
    """Open a file of text for reading its bytes, which are UTF-8 as far as its beginning tells.

    Args:
        path: The file.
        name: How to call it in the error.

    Raises:
        DataError: It is in another encoding.
        OSError: As :func:`unpacked`.
    """
    file = unpacked(path)
    if alien := other_encoding(cast("io.BufferedReader", file).peek(4)[:4]):
        file.close()
        raise alien.at(name)
    return file


def other_encoding(head: bytes) -> BadRow | None:
    """Tell from the first four bytes of a text that it is UTF-16 or UTF-32, which have a mark or zeros there."""
    encoding = json.detect_encoding(head)
    if encoding.startswith("utf-8"):
        return None
    said = encoding.upper()
    return BadRow(f"is {said}", "only UTF-8 is read", f"save it as UTF-8: iconv -f {said} -t UTF-8 FILE > NEW")


def lines(file: IO[bytes]) -> Iterator[bytes | BadRow]:
    """Yield the lines of a file; of one that is too long for a row nothing is kept."""
    while raw := file.readline(LARGEST + 1):
        if len(raw) <= LARGEST:
            yield raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(2**20)
        yield too_large()


def too_large(do: str = "make it several rows") -> BadRow:
    """Return the verdict on a row that is larger than any may be."""
    return BadRow(f"is larger than {LARGEST >> 20} MiB", "no row may be", do)


def decode(raw: bytes | BadRow) -> str | BadRow:
    """Return bytes as text, without the mark (BOM) that some editors put first; what is a bad row already stays it."""
    if isinstance(raw, BadRow):
        return raw
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return BadRow(
            "is not UTF-8", f"byte 0x{raw[error.start]:02x} at position {error.start + 1}", "save the file as UTF-8"
        )
