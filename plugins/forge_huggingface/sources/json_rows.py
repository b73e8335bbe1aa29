"""Read rows from JSON: an object a line, an array, or objects one after another, whatever the file's suffix says.

Also JSON that stands as text within rows: nothing of it may be lost either.

Files of lines are read line by line. All other files are held in memory as text, and their rows made one by one.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.rows import BadRow
from forge_huggingface.sources.texts import LARGEST, PACKED, RawRow, decode, lines, opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


HELD = 2**30
"""The most bytes of a packed file that are held in memory as a whole."""

_BLANK = " \t\n\r"


class _TwiceError(Exception):
    """An object has a key twice, and Python would keep the last value alone."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
_LENIENT = json.JSONDecoder()


def read_lines(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    """Yield the number and the row of each object in a file that should have one a line.

    The number is that of the line at which the object begins; in an array, it is the object's own.

    Raises:
        DataError: It is no file of lines, and not whole.
    """
    return _read(path, name, of_lines=True)


def read_whole(path: Path, name: str) -> Iterator[tuple[int, RawRow]]:
    """Yield the number and the row of each object in a file that should be one array, or ``{"data": [...]}``.

    The numbers are those of :func:`read_lines`.

    Raises:
        DataError: It is not whole, or holds no list of rows.
    """
    return _read(path, name, of_lines=False)


def _read(path: Path, name: str, *, of_lines: bool) -> Iterator[tuple[int, RawRow]]:
    with opened(path, name) as file:
        head: list[bytes | BadRow] = []  # up to the second line that is not blank
        filled: list[str | BadRow] = []
        start = file.readline(LARGEST + 1)
        if len(start) > LARGEST:  # all rows of the file stand in one line, or they are none
            head.append(start)
        else:
            rest = lines(file)
            for raw in chain([start], rest):
                head.append(raw)
                line = decode(raw)
                if isinstance(line, BadRow) or line.strip():
                    filled.append(line)
                    if len(filled) == 2:
                        break
            if not filled:
                return
            if _has_lines(filled[0], more=len(filled) > 1, expected=of_lines):
                yield from _of_lines(chain(head, rest))
                return
        text = decode(_whole(head, file, name, packed=path.suffix.lower() in PACKED))
    if isinstance(text, BadRow):
        raise text.at(name)
    try:
        yield from _of_document(text, name)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{error.lineno} is not JSON", f"{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise DataError(f"{name} cannot be read", "its JSON is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{name} cannot be read", _digits(error)) from error


def _whole(head: list[bytes | BadRow], file: IO[bytes], name: str, *, packed: bool) -> bytes:
    """Return all bytes of a file; a small one that is packed may unpack to more than the memory holds."""
    content = bytearray()
    for piece in head:
        if isinstance(piece, BadRow):
            raise piece.at(name)
        content += piece
    while more := file.read(2**24):
        content += more
        if packed and len(content) > HELD:
            raise DataError(
                f"{name} unpacks to more than {HELD >> 20} MiB",
                "JSON that is not a row a line is held in memory as a whole",
                "write a row a line (.jsonl), or unpack it",
            )
    return bytes(content)


def _has_lines(first: str | BadRow, *, more: bool, expected: bool) -> bool:
    """Tell by the first line whether each line stands for itself.

    Args:
        first: The first line that is not blank.
        more: Whether others follow it.
        expected: What the file's suffix says.
    """
    if isinstance(first, BadRow):
        return expected
    first = first.strip()
    if not more and (not expected or first.startswith("[")):
        return False
    try:
        for _ in _values(first):
            pass
    except json.JSONDecodeError as error:
        # An array or an object of several lines ends its first one where something must follow. A broken row does not.
        goes_on = error.pos >= len(first) and first[-1:] in tuple("{[,:")
        return expected and not goes_on and not first.startswith("[")
    except (RecursionError, ValueError):
        return expected
    return True


def _of_lines(raw_lines: Iterable[bytes | BadRow]) -> Iterator[tuple[int, RawRow]]:
    for number, raw in enumerate(raw_lines, 1):
        line = decode(raw)
        if isinstance(line, BadRow):
            yield number, line
            continue
        rows: list[RawRow]
        try:
            rows = [_row(value) for _, value in _values(line.rstrip())]
        except json.JSONDecodeError as error:
            rows = [BadRow("is not JSON", f"{error.msg} at column {error.colno}", "mend or remove the line")]
        except RecursionError:
            rows = [BadRow("is not a row", "its JSON is nested too deeply")]
        except ValueError as error:  # a number of thousands of digits
            rows = [BadRow("is not a row", _digits(error))]
        for row in rows:
            yield number, row


def _of_document(text: str, name: str) -> Iterator[tuple[int, RawRow]]:
    if text.startswith("[", _next(text, 0)):
        for number, value in enumerate(_items(text), 1):
            yield number, _row(value)
        return
    number, seen, values = 1, 0, list(_values(text))
    if len(values) == 1:
        yield from enumerate(_rows_of_one(values[0][1], name), 1)
        return
    for at, value in values:
        number += text.count("\n", seen, at)
        seen = at
        yield number, _row(value)


def _rows_of_one(value: Any, name: str) -> list[RawRow]:
    """Return the rows of a file that is one value: its list of data, or itself."""
    if isinstance(value, BadRow):
        return [value]
    if not isinstance(value, dict):
        raise DataError(f"{name} is not a list of rows", f"it is {_type(value)}", "write an array of objects")
    if isinstance(value.get("data"), list):
        return [_row(item) for item in value["data"]]
    lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
    if any("role" not in item[0] and "from" not in item[0] for item in lists):
        keys = ", ".join(map(repr, value))
        do = 'write an array of objects, or {"data": [...]}'
        raise DataError(f"{name} is not a list of rows", f"it is one object with {keys}", do)
    return [value]


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the place and the value of a JSON value and of all objects after it; of none in a blank text."""
    at = _next(text, 0)
    while at < len(text):
        value, end = scan(text, at)
        yield at, value
        at = _next(text, end)
        if at < len(text) and text[at] != "{":
            raise json.JSONDecodeError("Extra data", text, at)


def _items(text: str) -> Iterator[Any]:
    """Yield the values of the array that a text is."""
    at = _next(text, _next(text, 0) + 1)
    if text[at : at + 1] == "]":
        at = _next(text, at + 1)
    else:
        while True:
            value, end = scan(text, at)
            yield value
            at = _next(text, end)
            mark = text[at : at + 1]
            if mark not in ("]", ","):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            at = _next(text, at + 1)
            if mark == "]":
                break
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def load(text: str, what: str) -> Any:
    """Return the value of a text of JSON that a row holds.

    Args:
        text: The text.
        what: What it is, for errors.

    Raises:
        json.JSONDecodeError: It is not JSON.
        BadRow: It is, and Python cannot hold all of it.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except _TwiceError as error:
        raise twice(str(error), f"in {what}, ") from error
    except RecursionError as error:
        raise BadRow(f"cannot be read: the JSON of {what} is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadRow(f"cannot be read: the JSON of {what}", _digits(error)) from error


def _digits(error: ValueError) -> str:
    return str(error).partition(";")[0]  # what follows is for programmers


def twice(key: str, where: str = "") -> BadRow:
    """Return the verdict on a row in which an object has a key twice."""
    return BadRow(f"has the key {key!r} twice", f"{where}one of the values would be lost", "remove or rename one")


def scan(text: str, at: int, where: str = "") -> tuple[Any, int]:
    """Return the value at a place and where it ends; a bad row for one that would lose something in Python."""
    try:
        return _DECODER.raw_decode(text, at)
    except _TwiceError as error:
        return twice(str(error), where), _LENIENT.raw_decode(text, at)[1]


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _row(value: Any) -> RawRow:
    if isinstance(value, dict | BadRow):
        return value
    return BadRow("is not a row", f"a JSON object is needed, this is {_type(value)}")


def _type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
