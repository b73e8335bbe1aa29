"""The example reader on forge's own rows: what a database holds is trained on as files are."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from support.projects import Project, cut_after
from support.resuming import resumed

if TYPE_CHECKING:
    from collections.abc import Callable

    Store = Callable[[list[dict[str, Any]]], None]

PATH = "sqlite/rows:chats.db?table=chats"


@pytest.fixture
def stored(project: Project, examples: None) -> Store:
    """Write rows into the project's database."""

    def write(rows: list[dict[str, Any]]) -> None:
        with closing(sqlite3.connect(project.folder / "chats.db")) as database, database:
            database.execute("drop table if exists chats")
            database.execute(f"create table chats ({', '.join(rows[0])})")
            database.executemany(
                f"insert into chats values ({', '.join('?' * len(rows[0]))})", map(list, map(values, rows))
            )

    return write


def values(row: dict[str, Any]) -> list[Any]:
    """Return what a table holds of a row: a list as JSON."""
    return [json.dumps(value) if isinstance(value, list) else value for value in row.values()]


def rows_of(project: Project) -> list[dict[str, Any]]:
    lines = (project.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_rows_of_a_database_are_those_of_a_file(project: Project, stored: Store) -> None:
    stored(rows_of(project))
    digests, losses = [], []
    for path in (PATH, "rows.jsonl"):
        project.write(data={"path": path})
        done = project.perform()
        assert done.code == 0, done.printed
        digests.append(done.of_kind("data")[0]["digest"])
        losses.append(done.losses)
        assert digests[-1] in (done.folder.path / "job.lock.toml").read_text()
    assert digests[0] == digests[1]
    assert losses[0] == losses[1]


def test_a_database_that_has_changed_is_refused_on_resume(project: Project, stored: Store) -> None:
    rows = rows_of(project)
    stored(rows)
    project.write(data={"path": PATH})
    done = project.perform()
    cut_after(done.folder, 2)
    stored(rows[:-2])
    again = resumed(done.folder)
    assert again.code == 2
    assert again.error["what"] == "the rows are not those that this run began with"


def test_columns_are_renamed_and_rows_streamed(project: Project, stored: Store) -> None:
    stored([{"question": f"Name number {index}.", "answer": str(index), "stars": index % 5} for index in range(40)])
    project.write(
        data={
            "path": f"{PATH}&columns=question,answer&where=stars >= 2",
            "columns": {"prompt": "question", "completion": "answer"},
            "streaming": True,
        }
    )
    done = project.perform()
    assert done.code == 0, done.printed
    assert len(done.losses) == 4


@pytest.mark.slow
def test_the_preview_says_where_a_row_comes_from(project: Project, stored: Store) -> None:
    stored([{"question": "Name a colour.", "answer": "red"}] * 2)
    project.write(data={"path": PATH, "columns": {"prompt": "question", "completion": "answer"}})
    told = project.forge("data", "job.toml", "--rows", "1")
    assert f"{PATH}:1" in told
    assert "red" in told
