"""What stands behind `sqlite/rows:` in a job: a file, and what to read of it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from forge.api import DataError, did_you_mean

KEYS = ("table", "columns", "where", "order")


@dataclass(frozen=True, slots=True)
class Address:
    """Rows of a database.

    Attributes:
        file: The file, as the job writes it.
        table: The table or view; None for the only one.
        columns: The columns to read, in this order; none for all.
        where: An SQL expression that holds for the rows to read; None for all rows.
        order: The columns to sort by; none for the order in which the rows were written.
    """

    file: str
    table: str | None = None
    columns: tuple[str, ...] = ()
    where: str | None = None
    order: tuple[str, ...] = ()


def address_of(text: str) -> Address:
    """Read an address. Raises :class:`DataError` for a key that there is not.

    >>> address_of("chats.db?table=chats&columns=question,answer&where=stars >= 4")
    Address(file='chats.db', table='chats', columns=('question', 'answer'), where='stars >= 4', order=())
    """
    file, _, query = text.partition("?")
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if key not in KEYS:
            do = did_you_mean(key, KEYS, f"there are {', '.join(KEYS)}")
            raise DataError(f"sqlite/rows:{text} cannot be read", f"{key} is no key of an address", do)
        if key in found or not equals or not value:
            why = f"{key} stands there twice" if key in found else f"{key} has no value"
            raise DataError(f"sqlite/rows:{text} cannot be read", why, f"write {key}=… once")
        found[key] = unquote(value)
    if not file:
        raise DataError(f"sqlite/rows:{text} names no file", do="write sqlite/rows:chats.db?table=chats")
    return Address(
        file=file,
        table=found.get("table"),
        columns=_names(found.get("columns")),
        where=found.get("where"),
        order=_names(found.get("order")),
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()
