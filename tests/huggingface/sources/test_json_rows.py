"""Rows from JSON: whatever its shape, every object is a row, or is named."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge_huggingface.rows import BadRow
from forge_huggingface.sources.files import read

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"text": "one"}, {"text": 'two ] } \\ "', "more": [{"role": "a"}, {"role": "b"}]}, {"text": "three\nand"}]


def found(folder: Path, content: str | bytes, name: str = "x.jsonl") -> list[tuple[int, Any]]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [(int(origin.rpartition(":")[2]), row) for origin, row in read(folder / name, name)]


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2)


SHAPES = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "lines and blanks": "\ufeff\n\n" + "\r\n \r\n".join(map(json.dumps, ROWS)) + "\n\n",
    "array": json.dumps(ROWS),
    "array a line each": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "array from its first line": "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
    "pretty array": pretty(ROWS),
    "pretty array with a mark": "\ufeff\n" + pretty(ROWS),
    "pretty objects": "\n".join(map(pretty, ROWS)),
    "pretty objects without a break": "".join(map(pretty, ROWS)),
    "objects on one line": "".join(map(json.dumps, ROWS)),
    "two on a line": json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1]) + json.dumps(ROWS[2]) + "\n",
    "data": pretty({"data": ROWS}),
}


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_every_row(tmp_path: Path, name: str, shape: str) -> None:
    assert [row for _, row in found(tmp_path, SHAPES[shape], name)] == ROWS


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ("lines", [1, 2, 3]),
        ("lines and blanks", [3, 5, 7]),
        ("pretty array", [1, 2, 3]),
        ("pretty objects", [1, 4, 15]),
        ("two on a line", [1, 2, 2]),
    ],
)
def test_a_row_is_numbered_by_its_line_or_in_an_array_by_itself(tmp_path: Path, shape: str, numbers: list[int]) -> None:
    assert [number for number, _ in found(tmp_path, SHAPES[shape])] == numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pretty(ROWS)[:-3], r"x.jsonl:\d+ is not JSON"),
        ("[\n" + json.dumps(ROWS[0]) + ",\n]", "x.jsonl:3 is not JSON: Expecting value at column 1"),
        ("[\n" + json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1]) + "\n]", "x.jsonl:3 is not JSON: Expecting ','"),
        (pretty(ROWS) + "\n" + pretty(ROWS), r"x.jsonl:\d+ is not JSON: Extra data"),
        ("{\n" + '"a": 1\n}\n{\n"a" 2\n}', "x.jsonl:5 is not JSON: Expecting ':' delimiter at column 5"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_document_that_is_not_whole_is_an_error_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(tmp_path, content)


@pytest.mark.parametrize(
    ("first", "bad"),
    [
        ('{"text": "a"', "is not JSON: Expecting ',' delimiter at column 13"),
        ('{"text": "a', "is not JSON: Unterminated string starting at at column 10"),
        ('{"text": "a"},', "is not JSON: Extra data at column 14"),
        ('{"text": "a"} 5', "is not JSON: Extra data at column 15"),
        ("text", "is not JSON: Expecting value at column 1"),
        ("[1]", "is not a row: a JSON object is needed, this is an array"),
        ("3", "is not a row: a JSON object is needed, this is a number"),
        ('{"a": ' + "9" * 5000 + "}", "is not a row: Exceeds the limit (4300 digits)"),
        ('{"a": 1, "b": 2, "a": 3}', "has the key 'a' twice: one of the values would be lost"),
        ('{"m": [{"x": [{"b": 1, "b": 1}]}]}', "has the key 'b' twice"),
    ],
)
def test_a_bad_line_is_one_bad_row_also_where_it_is_the_first(tmp_path: Path, first: str, bad: str) -> None:
    good = '{"text": "b"}\n{"text": "c"}\n'
    for content in (f"{first}\n{good}", f"{good}{first}\n"):
        rows = dict(found(tmp_path, content))
        (number,) = [number for number, row in rows.items() if isinstance(row, BadRow)]
        assert number == (1 if content.startswith(first) else 3)
        assert str(rows[number]).startswith(bad)
        assert [row for row in rows.values() if not isinstance(row, BadRow)] == [{"text": "b"}, {"text": "c"}]


def test_a_key_that_an_object_of_an_array_has_twice_makes_that_one_bad(tmp_path: Path) -> None:
    rows = found(tmp_path, '[{"a": 1},\n {"a": {"b": 1, "b": 2}, "c": [{}]},\n {"a": 3}]')
    assert [number for number, _ in rows] == [1, 2, 3]
    assert [rows[0][1], rows[2][1]] == [{"a": 1}, {"a": 3}]
    assert str(rows[1][1]) == "has the key 'b' twice: one of the values would be lost"


def test_numbers_that_json_does_not_know_are_read(tmp_path: Path) -> None:
    ((_, row),) = found(tmp_path, '{"a": NaN, "b": [Infinity, -Infinity]}')
    assert math.isnan(row["a"])
    assert row["b"] == [math.inf, -math.inf]


def test_one_line_is_a_row_in_a_file_of_lines_and_a_list_of_data_in_a_whole_one(tmp_path: Path) -> None:
    content = '{"data": [{"text": "a"}, {"text": "b"}]}'
    assert found(tmp_path, content) == [(1, json.loads(content))]
    assert found(tmp_path, content, "x.json") == [(1, {"text": "a"}), (2, {"text": "b"})]


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", "[]", "[ ]\n", '{\n"data": []}'])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: str, name: str) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        found(tmp_path, content, name)
