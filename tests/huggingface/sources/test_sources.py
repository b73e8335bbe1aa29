"""Sources: what a path of the job means, and that a broken place is named."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from pyarrow import parquet

from forge.errors import DataError
from forge.job.data import Source
from forge.job.job import Job
from forge_huggingface.rows import BadRow
from forge_huggingface.sources.files import read
from forge_huggingface.sources.sources import is_hub_id, iterate, left_out

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"text": "one"}, {"text": "two, and\nmore"}]


def job(folder: Path) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "x"}}).model_copy(update={"folder": folder})


def rows(folder: Path, path: str | list[str], **source: Any) -> list[tuple[str, Any]]:
    return list(iterate(job(folder), Source.model_validate({"path": path, **source})))


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
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
            "txt": "one",
        }
        raw = text.get(name, text[name.rsplit(".", 1)[1]]).encode()
        path.write_bytes(
            gzip.compress(raw) if path.suffix in (".gz", ".GZ") else zstd(raw) if path.suffix == ".zst" else raw
        )
    return path


def zstd(raw: bytes) -> bytes:
    packed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(packed, "zstd") as file:
        file.write(raw)
    return bytes(packed.getvalue())


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
        ("a.json.gz", 2),
        ("a.jsonl.zst", 3),
        ("a.json.zst", 2),
        ("a.csv.zst", 3),
        ("A.JSONL", 3),
        ("A.TSV.GZ", 3),
    ],
)
def test_every_kind_of_file_gives_its_rows_and_their_places(tmp_path: Path, name: str, second: int) -> None:
    write(tmp_path / name)
    expected = list(zip([f"{name}:{2 if 'sv' in name.lower() else 1}", f"{name}:{second}"], ROWS, strict=True))
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
        ("x.xlsx", b"PK", "its suffix is .xlsx; save it as CSV or Parquet"),
        ("x.parquet.gz", b"", "use one of .jsonl"),
        ("x.csv.gz", gzip.compress(b"1\n" * 99, mtime=0)[:-9], "x.csv.gz cannot be read: .*; compress it again"),
        ("x.txt.zst", b"plain", "x.txt.zst cannot be read: .*; compress it again"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS .*; run git lfs pull"),
        ("x.jsonl", '{"a": 1}'.encode("utf-16"), "x.jsonl is UTF-16: only UTF-8 is read; save it as UTF-8: iconv -f"),
        ("x.csv", "a\n1\n".encode("utf-16-le"), "x.csv is UTF-16-LE"),
        ("x.json", b'[{"a": "\xe9"}]', "x.json is not UTF-8: byte 0xe9"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read(tmp_path / name, name))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_text_is_one_row_with_all_that_it_holds(tmp_path: Path, suffix: str) -> None:
    text = "\ufeffErste Zeile\r\n\r\nzweite, größere\n"
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[suffix]
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(text.encode()))
    assert rows(tmp_path, f"a.txt{suffix}") == [(f"a.txt{suffix}:1", {"text": text[1:]})]


@pytest.mark.parametrize(
    ("content", "bad"),
    [
        (b"", "has no text: the file is empty"),
        (b"\xef\xbb\xbf \n", "has no text: the file is empty"),
        (b"caf\xe9", "is not UTF-8: byte 0xe9 at position 4"),
        ("Zeile".encode("utf-16"), "is UTF-16: only UTF-8 is read"),
    ],
)
def test_a_text_that_is_no_row_is_a_bad_row_among_others(tmp_path: Path, content: bytes, bad: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.txt").write_text("good")
    (_, first), second = rows(tmp_path, "*.txt")
    assert isinstance(first, BadRow)
    assert str(first) == bad
    assert second == ("b.txt:1", {"text": "good"})


def test_parts_of_zstd_that_were_put_together_are_all_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(zstd(b'{"a": 1}\n') + zstd(b'{"a": 2}\n'))
    assert [row for _, row in rows(tmp_path, "a.jsonl.zst")] == [{"a": 1}, {"a": 2}]


def test_a_missing_file_names_what_lies_near(tmp_path: Path) -> None:
    write(tmp_path / "cards.jsonl")
    with pytest.raises(DataError, match=r"card.jsonl was not found: .*; did you mean cards.jsonl\?"):
        rows(tmp_path, "card.jsonl")
    with pytest.raises(DataError, match="no file matches"):
        rows(tmp_path, "*.csv")
    with pytest.raises(DataError, match=r"has cards.jsonl; mend the pattern"):
        rows(tmp_path, "*.csv")
    write(tmp_path / "rows" / "a.jsonl")
    for text in ("rosw/a.jsonl", "rosw/*.jsonl"):
        with pytest.raises(DataError, match=r"was not found: .*; did you mean rows\?"):
            rows(tmp_path, text)


def test_globs_and_lists_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.json"):
        write(tmp_path / name)
    assert [origin for origin, _ in rows(tmp_path, "*.jsonl")] == ["a.jsonl:1", "a.jsonl:3", "b.jsonl:1", "b.jsonl:3"]
    assert len(rows(tmp_path, "**/*.js*")) == 6
    assert [origin for origin, _ in rows(tmp_path, ["b.jsonl", "sub/c.json"])][::2] == ["b.jsonl:1", "sub/c.json:1"]


@pytest.mark.parametrize("folder", ["[v2] project", "-x", "größe 東京", "a*b", "what?", "{a,b}", "!(x)"])
def test_the_names_of_folders_are_no_patterns(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "rows" / "a.jsonl")
    for text in ("rows/*.jsonl", "rows/a.jsonl", "rows", "**/*.jsonl"):
        assert [origin for origin, _ in rows(tmp_path / folder, text)] == ["rows/a.jsonl:1", "rows/a.jsonl:3"]
    for text in (f"{folder}/rows/*.jsonl", f"{folder}/rows", f"{folder}/*/a.jsonl"):
        assert [row for _, row in rows(tmp_path, text)] == ROWS


def test_what_exists_by_its_name_is_meant_before_what_a_pattern_would_match(tmp_path: Path) -> None:
    for name in ("a[1].jsonl", "a1.jsonl"):
        write(tmp_path / name)
    assert [origin for origin, _ in rows(tmp_path, "a[1].jsonl")] == ["a[1].jsonl:1", "a[1].jsonl:3"]
    assert [origin for origin, _ in rows(tmp_path, "a[12].jsonl")] == ["a1.jsonl:1", "a1.jsonl:3"]
    with pytest.raises(DataError, match=r"did you mean a\[1\].jsonl or a1.jsonl\?"):
        rows(tmp_path, "a1].jsonl")


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "[home]"))
    write(tmp_path / "[home]" / "rows" / "a.jsonl")
    assert [row for _, row in rows(tmp_path / "elsewhere", "~/rows/*.jsonl")] == ROWS


def test_a_pattern_honours_the_split_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("d/train-0.jsonl", "d/test.jsonl"):
        write(tmp_path / name)
    assert len(rows(tmp_path, "d/*.jsonl")) == 4
    assert {origin.split(":")[0] for origin, _ in rows(tmp_path, "d/*.jsonl", split="test")} == {"d/test.jsonl"}
    with pytest.raises(DataError, match="no split 'validation': there are test, train"):
        rows(tmp_path, "d/*", split="validation")


def test_a_pattern_tells_which_folders_and_caches_it_does_not_open(tmp_path: Path) -> None:
    for name in ("d/a.jsonl", "d/more/b.jsonl", "saved/data.arrow", "saved/cache-1.arrow"):
        write(tmp_path / name)
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    source = Source.model_validate({"path": ["d/*", "saved/*.arrow"]})
    assert left_out(job(tmp_path), [source]) == [
        "not read of d/*: d/more (folders, which a pattern does not open)",
        "not read of saved/*.arrow: saved/cache-1.arrow (caches of datasets)",
    ]
    assert left_out(job(tmp_path), [Source.model_validate({"path": "d/**"})]) == []


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
