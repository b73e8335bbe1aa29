"""Sources: what a path of the job means, and that a broken place is named."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from pyarrow import parquet

from forge.errors import DataError
from forge.job.job import Job
from forge.job.tables import Source
from forge_huggingface.data.files import read
from forge_huggingface.data.sources import is_hub_id, iterate
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"text": "one"}, {"text": "two, and\nmore"}]


def job(folder: Path) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "x"}}).model_copy(update={"folder": folder})


def rows(folder: Path, path: str | list[str], **source: Any) -> list[tuple[str, Any]]:
    return list(iterate(job(folder), Source.model_validate({"path": path, **source})))


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    table = pyarrow.Table.from_pylist(ROWS)
    if name.endswith(".parquet"):
        parquet.write_table(table, path)
    elif name.endswith("file.arrow"):
        with pyarrow.ipc.new_file(path, table.schema) as out:
            out.write_table(table)
    elif name.endswith(".arrow"):
        with pyarrow.ipc.new_stream(path, table.schema) as out:
            out.write_table(table)
    else:
        text = {
            "jsonl": "\n\n".join(json.dumps(row) for row in ROWS),
            "json": json.dumps(ROWS),
            "data.json": json.dumps({"data": ROWS}),
            "lines.json": "\n".join(json.dumps(row) for row in ROWS),
            "csv": 'text\none\n"two, and\nmore"\n',
            "tsv": 'text\none\n"two, and\nmore"\n',
        }
        raw = text.get(name, text[name.rsplit(".", 1)[1]]).encode()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("a.jsonl", 3),
        ("a.json", 2),
        ("data.json", 2),
        ("lines.json", 2),
        ("a.csv", 3),
        ("a.tsv", 3),
        ("a.parquet", 2),
        ("file.arrow", 2),
        ("stream.arrow", 2),
        ("a.jsonl.gz", 3),
        ("a.csv.gz", 3),
    ],
)
def test_every_kind_of_file_gives_its_rows_and_their_places(tmp_path: Path, name: str, second: int) -> None:
    write(tmp_path / name)
    expected = list(
        zip([f"{name}:{2 if 'csv' in name or 'tsv' in name else 1}", f"{name}:{second}"], ROWS, strict=True)
    )
    assert rows(tmp_path, name) == expected


def test_a_broken_line_is_named_by_file_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n{"text": "b" "c"}\n[1]\n{"text": "\xe9"}\n{"text": "d"}\n')
    found = rows(tmp_path, "x.jsonl")
    bad = [row.at(origin) for origin, row in found if isinstance(row, BadRow)]
    assert str(bad[0]).startswith("x.jsonl:2 is not JSON: Expecting ',' delimiter at column 14")
    assert "x.jsonl:3 is not a row" in str(bad[1])
    assert "x.jsonl:4 is not UTF-8: byte 0xe9" in str(bad[2])
    assert found[4] == ("x.jsonl:5", {"text": "d"})


def test_a_csv_row_with_too_many_fields_is_bad_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n1,2,3\n4,5\n")
    found = rows(tmp_path, "x.csv")
    assert isinstance(found[1][1], BadRow)
    assert found[2] == ("x.csv:4", {"a": "4", "b": "5"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "holds no rows"),
        ("x.json", b"[{]", "x.json:1 is not JSON"),
        ("x.json", b"3", "not a list of rows"),
        ("x.json", b'{"rows": [{"a": 1}]}', "not a list of rows"),
        ("x.parquet", b"PAR1", "not a whole Parquet file"),
        ("x.arrow", b"nothing", "not a whole Arrow file"),
        ("x.csv", b"a,a\n1,2\n", "no usable header"),
        ("x.jsonl.gz", b"plain", "cannot be read"),
        ("x.pkl", b"\x80", "use one of .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read(tmp_path / name, name))


def test_a_missing_file_names_what_lies_near(tmp_path: Path) -> None:
    write(tmp_path / "cards.jsonl")
    with pytest.raises(DataError, match=r"card.jsonl was not found: .*; did you mean cards.jsonl\?"):
        rows(tmp_path, "card.jsonl")
    with pytest.raises(DataError, match="no file matches"):
        rows(tmp_path, "*.csv")


def test_globs_and_lists_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.json"):
        write(tmp_path / name)
    assert [origin for origin, _ in rows(tmp_path, "*.jsonl")] == ["a.jsonl:1", "a.jsonl:3", "b.jsonl:1", "b.jsonl:3"]
    assert len(rows(tmp_path, "**/*.js*")) == 6
    assert [origin for origin, _ in rows(tmp_path, ["b.jsonl", "sub/c.json"])][::2] == ["b.jsonl:1", "sub/c.json:1"]


@pytest.mark.parametrize("layout", [("train/0.jsonl", "test/0.jsonl"), ("train-0.jsonl", "test.jsonl")])
def test_a_folder_honours_the_split(tmp_path: Path, layout: tuple[str, str]) -> None:
    for name in layout:
        write(tmp_path / "d" / name)
    assert {origin.split(":")[0] for origin, _ in rows(tmp_path, "d")} == {f"d/{layout[0]}"}
    assert {origin.split(":")[0] for origin, _ in rows(tmp_path, "d", split="test")} == {f"d/{layout[1]}"}
    with pytest.raises(DataError, match="no split 'validation': there are test, train"):
        rows(tmp_path, "d", split="validation")


def test_a_folder_without_splits_gives_all_its_files(tmp_path: Path) -> None:
    for name in ("tests_passed.jsonl", "cards.json", ".hidden.json"):
        write(tmp_path / "d" / name)
    assert len(rows(tmp_path, "d")) == 4
    with pytest.raises(DataError, match="no split"):
        rows(tmp_path, "d", split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no rows"):
        rows(tmp_path, "empty")


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert [row for _, row in rows(tmp_path, "saved")] == ROWS


def test_a_hub_id_is_what_looks_like_one_and_is_not_here(tmp_path: Path) -> None:
    here = job(tmp_path)
    assert is_hub_id(here, "org/name-v1.5")
    assert not is_hub_id(here, "data/cards.jsonl")
    assert not is_hub_id(here, "./org/name")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not is_hub_id(here, "org/name")


def test_a_hub_data_set_that_cannot_be_had_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="the data set org/none cannot be read: ") as caught:
        rows(tmp_path, "org/none")
    assert "\n" not in str(caught.value)
    assert caught.value.do
