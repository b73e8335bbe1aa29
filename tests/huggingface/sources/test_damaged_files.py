"""Files of rows that are damaged, or hold far more than they look: a bad row by its number, or the file by its name."""

from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from pyarrow import parquet

from forge.errors import DataError
from forge_huggingface.data.weight import DEEPEST, blocks
from forge_huggingface.rows import BadRow
from forge_huggingface.sources import files, json_rows, texts
from forge_huggingface.sources.arrow_rows import _at_once
from forge_huggingface.sources.files import read
from support.damage import damage_bytes

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"text": f"row {number} " * 5, "number": number, "list": [1, 2]} for number in range(300)]


def arrow(path: Path, table: Any) -> None:
    with pyarrow.ipc.new_file(str(path), table.schema) as sink:
        sink.write_table(table)


def stream(path: Path, table: Any) -> None:
    with pyarrow.ipc.new_stream(str(path), table.schema) as sink:
        sink.write_table(table)


def written(folder: Path) -> list[Path]:
    """Write the rows in every form, and return the files."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    table = "text,number\n" + "".join(f'"row, {number}",{number}\n' for number in range(300))
    contents = {
        "a.jsonl": lines,
        "a.json": json.dumps(ROWS).encode(),
        "a.csv": table.encode(),
        "a.txt": lines,
        "a.jsonl.gz": gzip.compress(lines),
        "a.csv.gz": gzip.compress(table.encode()),
        "a.jsonl.zst": pyarrow.compress(lines, codec="zstd", asbytes=True),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "a.parquet")
    arrow(folder / "a.arrow", pyarrow.Table.from_pylist(ROWS))
    stream(folder / "b.arrow", pyarrow.Table.from_pylist(ROWS))
    return sorted(folder.iterdir())


def test_whatever_happens_to_a_file_is_told_of_it_or_of_a_row(tmp_path: Path) -> None:
    paths = written(tmp_path)
    whole = {path: path.read_bytes() for path in paths}
    told = 0
    for seed in range(400):
        path, rng = paths[seed % len(paths)], random.Random(seed)
        path.write_bytes(whole[path])
        done = damage_bytes(rng, path)
        try:
            told += any(isinstance(row, BadRow) for _, row in read(path, path.name))
        except DataError as error:
            told += path.name in str(error)
        except Exception as error:
            raise AssertionError(f"{path.name} {seed}: {done}") from error
    assert told > 300


ODD: dict[str, Any] = {
    "moment": pyarrow.array([1, 2**62, 3], pyarrow.timestamp("us")),
    "zone": pyarrow.array([None, 2, None], pyarrow.timestamp("us", "Nowhere/City")),
    "day": pyarrow.array([1, 2**31 - 1, 3], pyarrow.date32()),
    "span": pyarrow.array([1, 2**62, 3], pyarrow.duration("s")),
    "hour": pyarrow.array([1, 2**40, 3], pyarrow.time64("us")),
    "moments": pyarrow.array([[1], [2**62], []], pyarrow.list_(pyarrow.timestamp("us"))),
    "inner": pyarrow.array([{"at": 1}, {"at": 2**62}, None], pyarrow.struct([("at", pyarrow.timestamp("us"))])),
    "broken": pyarrow.StringArray.from_buffers(
        3, pyarrow.py_buffer(b"".join(at.to_bytes(4, "little") for at in range(4))), pyarrow.py_buffer(b"a\xffb")
    ),
}


@pytest.mark.parametrize("column", ODD)
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_value_that_python_has_not_makes_a_bad_row(tmp_path: Path, name: str, column: str) -> None:
    table = pyarrow.table({"text": ["a", "b", "c"], column: ODD[column]})
    (parquet.write_table if name == "a.parquet" else lambda each, path: arrow(path, each))(table, tmp_path / name)
    rows = dict(read(tmp_path / name, name))
    assert [isinstance(row, BadRow) for row in rows.values()] == [False, True, False]
    assert str(rows[f"{name}:2"]).startswith(f"has a value in '{column}' that cannot be read: ")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_column_twice_is_told_as_one_would_be_lost(tmp_path: Path, name: str) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    (parquet.write_table if name == "a.parquet" else lambda each, path: arrow(path, each))(table, tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} has the column 'text' twice"):
        list(read(tmp_path / name, name))


def test_rows_that_a_file_holds_once_are_made_few_at_a_time(tmp_path: Path) -> None:
    """Of equal rows a file holds one and how often it comes."""
    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["x" * 2**22])
    parquet.write_table(pyarrow.table({"text": long}), tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"none": [[None] * 10**6] * 2}), tmp_path / "b.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    sizes = [_at_once(parquet.ParquetFile(tmp_path / f"{name}.parquet").metadata.row_group(0)) for name in "abc"]
    assert 1 <= sizes[0] <= 255
    assert 1 <= sizes[1] <= 70
    assert sizes[2] == 256
    rows = read(tmp_path / "a.parquet", "a.parquet")
    assert len(next(blocks(rows, 512))) <= 16


def shrink(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for module in (files, json_rows, texts):
        monkeypatch.setattr(module, "LARGEST", most)


def test_a_line_beyond_the_bound_is_a_bad_row_of_which_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, 1000)
    lines = b'{"text": "a"}\n{"text": "' + b"0" * 5_000_000 + b'"}\n{"text": "b"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    rows = list(read(tmp_path / "a.jsonl.gz", "a.jsonl.gz"))
    assert [origin for origin, _ in rows] == ["a.jsonl.gz:1", "a.jsonl.gz:2", "a.jsonl.gz:3"]
    assert "is larger than" in str(rows[1][1])
    assert rows[2][1] == {"text": "b"}


def test_rows_in_one_line_may_be_longer_than_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, 1000)
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps(ROWS))
        assert [row for _, row in read(tmp_path / name, name)] == ROWS


def test_what_unpacks_to_more_than_the_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "HELD", 2**20)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[\n" * 2**24))
    with pytest.raises(DataError, match=r"a\.json\.gz unpacks to more than 1 MiB"):
        list(read(tmp_path / "a.json.gz", "a.json.gz"))


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_a_text_or_a_line_of_a_table_has_the_same_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shrink(monkeypatch, 1000)
    (tmp_path / name).write_text("text\n" + "x" * 2000)
    try:
        ((origin, row),) = read(tmp_path / name, name)
    except DataError as error:
        assert str(error).startswith("a.csv:2 is larger than")  # noqa: PT017 - only a table ends so
    else:
        assert origin == "a.txt:1"
        assert "is larger than" in str(row)


def nested(depth: int) -> dict[str, Any]:
    return {"text": "a", "more": json.loads("[" * depth + "]" * depth)}


def test_a_row_is_no_deeper_than_may_be_walked_through() -> None:
    (block,) = blocks(iter([("a:1", nested(DEEPEST - 1)), ("a:2", nested(DEEPEST)), ("a:3", nested(900))]), 10)
    assert [isinstance(row, BadRow) for _, row in block] == [False, True, True]
    assert str(block[1][1]) == "is nested too deeply: more than 100 levels"
