"""Reads rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import DataError, did_you_mean

from forge_sqlite.address import Address, address_of

if TYPE_CHECKING:
    from forge.api import Job


def rows(job: Job, path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of an address one by one: none of it stays in memory, however large the table is.

    The file is opened for reading only, and all rows come from one state of it.

    Raises:
        DataError: There is no such file, table or column, or a cell holds what is neither text nor a number.
    """
    address = address_of(path)
    file = job.path(address.file)
    try:
        with closing(_opened(file, address)) as database:
            database.execute("begin")
            query, columns = _query(database, file, address)
            for number, row in enumerate(database.execute(query), 1):
                yield _checked(dict(zip(columns, row, strict=True)), f"{address.file}:{number}")
    except sqlite3.Error as error:
        raise DataError(f"{address.file} cannot be read", f"SQLite says: {error}") from error


def _opened(file: Path, address: Address) -> sqlite3.Connection:
    if not file.is_file():
        near = [each.name for each in file.parent.glob("*")] if file.parent.is_dir() else []
        raise DataError(f"there is no file {file}", do=did_you_mean(file.name, near, "check [data] path"))
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _query(database: sqlite3.Connection, file: Path, address: Address) -> tuple[str, list[str]]:
    """Return the query of an address, and the columns that it gives."""
    tables = dict(database.execute(_TABLES).fetchall())
    if not tables:
        raise DataError(f"{file} has no table")
    if address.table is None and len(tables) > 1:
        raise DataError(f"{file} has {len(tables)} tables", ", ".join(tables), "write ?table=… behind the file")
    table = address.table or next(iter(tables))
    _known([table], tables, f"table of {file}")
    # Generated columns are told, too; hidden ones, which only virtual tables have (1), are for their queries.
    known = [name for _, name, *_, hidden in database.execute(f"pragma table_xinfo({_quoted(table)})") if hidden != 1]
    # SQLite takes a name in quotes that fits no column for a text, so each is looked up first.
    _known([*address.columns, *address.order], known, f"column of {table}")
    columns = list(address.columns) or known
    query = f"select {', '.join(map(_quoted, columns))} from {_quoted(table)}"
    if address.where:
        query += f" where ({address.where})"
    order = ", ".join(map(_quoted, address.order))
    if not order and tables[table] == "table" and _has_rowid(database, table):
        order = "rowid"
    return (f"{query} order by {order}" if order else query), columns


_TABLES = "select name, type from sqlite_master where type in ('table', 'view') and substr(name, 1, 7) != 'sqlite_'"


def _known(names: Collection[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"{name} is no {what}", do=did_you_mean(name, known, f"there are {', '.join(known)}"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _has_rowid(database: sqlite3.Connection, table: str) -> bool:
    try:
        database.execute(f"select rowid from {_quoted(table)} limit 0")
    except sqlite3.OperationalError:  # a table that was made without one
        return False
    return True


def _checked(row: dict[str, Any], place: str) -> dict[str, Any]:
    for column, value in row.items():
        if isinstance(value, bytes):
            do = "leave the column out: write ?columns=… behind the file"
            raise DataError(f"{place} has bytes in the column {column}", "a row holds text and numbers", do)
    return row
