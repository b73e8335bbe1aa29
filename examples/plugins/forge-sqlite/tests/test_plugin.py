"""The contract of a forge plugin, and what this one does in a run."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from forge.api import DataError, ForgeError, Job
from forge.testing import check_plugin, run_job

from forge_sqlite.address import address_of
from forge_sqlite.read import rows


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A database with a table of chats, one of files, and a view."""
    path = tmp_path / "chats.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table chats (question text, answer text, stars integer)")
        database.executemany(
            "insert into chats values (?, ?, ?)",
            [("Name a colour.", "red", 5), ("Name a city.", "Paris", 2), ("Name a sea.", "the Baltic", 4)],
        )
        database.execute("create table files (name text primary key, content blob) without rowid")
        database.execute("insert into files values ('a.bin', x'00ff')")
        database.execute("create view good as select question, answer from chats where stars > 3")
    return path


def reading(database: Path, query: str) -> Iterator[dict[str, Any]]:
    job = Job.model_validate({"model": {"id": "any"}, "data": {"path": "any"}, "folder": database.parent})
    return rows(job, f"{database.name}?{query}")


def read(database: Path, query: str) -> list[dict[str, Any]]:
    return list(reading(database, query))


def test_the_plugin_keeps_its_contract() -> None:
    check_plugin("sqlite")


def test_a_run_reads_the_rows(tmp_path: Path, chats: Path) -> None:
    path = "sqlite/rows:chats.db?table=chats&columns=question,answer"
    ran = run_job(f'[data]\npath = "{path}"\n', tmp_path)
    assert [event.values["rows"] for event in ran.of_kind("data")] == [3]


def test_a_run_tells_which_table_is_meant(tmp_path: Path, chats: Path) -> None:
    with pytest.raises(ForgeError, match=r"did you mean chats\?"):
        run_job('[data]\npath = "sqlite/rows:chats.db?table=chat"\n', tmp_path)


def test_rows_come_by_column_in_the_order_in_which_they_were_written(chats: Path) -> None:
    found = read(chats, "table=chats")
    assert found[0] == {"question": "Name a colour.", "answer": "red", "stars": 5}
    assert [row["answer"] for row in found] == ["red", "Paris", "the Baltic"]


def test_columns_where_and_order_choose(chats: Path) -> None:
    found = read(chats, "table=chats&columns=answer&where=stars >= 4&order=stars")
    assert found == [{"answer": "the Baltic"}, {"answer": "red"}]


def test_a_view_is_read(chats: Path) -> None:
    assert [row["answer"] for row in read(chats, "table=good")] == ["red", "the Baltic"]


def test_a_table_without_rowid_is_read(chats: Path) -> None:
    assert read(chats, "table=files&columns=name") == [{"name": "a.bin"}]


def test_the_only_table_needs_no_name(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "one.db")) as database, database:
        database.execute('create table "an ""odd"" one" (text text)')
        database.execute('insert into "an ""odd"" one" values (?)', ("a text",))
    assert read(tmp_path / "one.db", "") == [{"text": "a text"}]


def test_reading_leaves_no_trace_and_sees_one_state(chats: Path) -> None:
    before = chats.read_bytes()
    left = reading(chats, "table=chats")
    next(left)
    with closing(sqlite3.connect(chats, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("insert into chats values ('late', 'row', 1)")
        other.commit()
    assert len(list(left)) == 2
    assert chats.read_bytes() == before
    assert [path.name for path in chats.parent.iterdir()] == ["chats.db"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "has 3 tables: chats, files, good"),
        ("table=chat", r"chat is no table of .*did you mean chats\?"),
        ("table=chats&columns=question,anwser", r"anwser is no column of chats.*did you mean answer\?"),
        ("table=chats&order=star", r"star is no column of chats.*did you mean stars\?"),
        ("tabel=chats", r"tabel is no key of an address.*did you mean table\?"),
        ("table=chats&table=files", "table stands there twice"),
        ("table=", "table has no value"),
        ("table=chats&where=stars >", "SQLite says: "),
        ("table=files", r"chats.db:1 has bytes in the column content.*write \?columns="),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_do(chats: Path, query: str, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read(chats, query)
    assert re.search(said, str(raised.value)), str(raised.value)


def test_a_file_that_is_none_is_told(tmp_path: Path, chats: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean chats.db\?"):
        read(tmp_path / "chat.db", "table=chats")
    assert not (tmp_path / "chat.db").exists()
    (tmp_path / "text.db").write_text("no database at all, but a text of some length")
    with pytest.raises(DataError, match="not a database"):
        read(tmp_path / "text.db", "table=chats")


def test_a_sign_that_means_something_in_an_address_can_be_written() -> None:
    assert address_of("a.db?where=name = 'a%26b'").where == "name = 'a&b'"
