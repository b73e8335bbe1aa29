"""Find what a row has in a column, under any of the names that the column goes by.

Every row is asked anew: rows of one source may leave a column out, or call it otherwise. What was taken from any row is
known afterwards, and so is what was left: a column that one row uses is not used in a row that has no place for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def blank(value: Any) -> bool:
    """Tell whether a cell says nothing: null, white space, or an empty list or object."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, list | tuple | dict) and not value)


class Columns:
    """The columns of a source, by forge's names.

    Args:
        given: The job's names: what forge calls a column, and what the source calls it.
        names: forge's name of each column, and the names that it goes by elsewhere.

    Attributes:
        taken: The columns that were taken from the row at hand.
    """

    def __init__(self, given: Mapping[str, str], names: Mapping[str, tuple[str, ...]]) -> None:
        self.given = dict(given)
        taken = set(given.values())
        self.names: dict[str, tuple[str, ...]] = {
            name: (given[name],) if name in given else tuple(each for each in others if each not in taken)
            for name, others in names.items()
        }
        self.taken: set[str] = set()
        self._used: dict[str, dict[str, None]] = {}
        self._own = {column for columns in self.names.values() for column in columns}
        self._foreign: set[str] = set()  # what is none of these, and was met
        self._left: dict[str, int] = {}

    @property
    def used(self) -> dict[str, str]:
        """Return forge's name of each column that was taken, and the source's; several where rows differ."""
        return {name: "/".join(columns) for name, columns in self._used.items()}

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that hold something and were not taken, in the order in which they were met.

        One that was taken from other rows stands here with the number of rows in which it says something else than what
        was taken.
        """
        used = {column for columns in self._used.values() for column in columns}
        return tuple(
            column if column not in used else f"{column} (in {rows} row{'s' if rows > 1 else ''})"
            for column, rows in self._left.items()
            if rows or column not in used
        )

    def find(self, raw: Mapping[str, Any], name: str, good: Callable[[Any], bool] | None = None) -> str | None:
        """Return the column of a row that is forge's ``name``; None if the row has nothing there.

        forge's own name comes before others. Of others only one may hold something: which is meant, nobody knows.

        Args:
            raw: The row.
            name: forge's name.
            good: What else a value must be.

        Raises:
            BadRow: Several columns go by the name.
        """
        found = None
        for column in self.names[name]:
            value = raw.get(column)
            if value is None or blank(value) or (good is not None and not good(value)):
                continue
            if found is None:
                found = column
                if column == name:
                    break
            elif value != raw[found]:
                raise several(name, found, column)
        if found is not None:
            self.taken.add(found)
            if found not in (used := self._used.setdefault(name, {})):
                used[found] = None
        return found

    def get(self, raw: Mapping[str, Any], name: str) -> Any:
        """Return what a row has under forge's ``name``, or None."""
        column = self.find(raw, name)
        return None if column is None else raw[column]

    def called(self, raw: Mapping[str, Any], name: str) -> str:
        """Return what a column is called for people: as the row has it, even where it is empty."""
        return next((column for column in self.names[name] if column in raw), (*self.names[name], name)[0])

    def need(self, raw: Mapping[str, Any], name: str) -> tuple[str, Any]:
        """Return the column that is forge's ``name``, and what a row has there.

        Raises:
            BadRow: It has nothing there.
        """
        column = self.find(raw, name)
        if column is None:
            raise nothing(raw, self.called(raw, name))
        return column, raw[column]

    def text(self, raw: Mapping[str, Any], name: str) -> str:
        """Return the text that a row must have. Raises :class:`BadRow` if it has none."""
        column, value = self.need(raw, name)
        return _string(value, column)

    def optional(self, raw: Mapping[str, Any], name: str) -> str | None:
        """Return the text that a row may have. Raises :class:`BadRow` if it has something else."""
        column = self.find(raw, name)
        return None if column is None else _string(raw[column], column)

    def left(self, raw: Mapping[str, Any]) -> list[str]:
        """Return the columns that hold something in a row and were not taken from it, but for others than forge's own.

        Those are returned once.
        """
        if not (left := raw.keys() - self.taken - self._foreign):
            return []
        return [column for column in raw if column in left and not blank(raw[column])]

    def note(self, raw: Mapping[str, Any], left: Sequence[str]) -> None:
        """Keep in mind what :meth:`left` found in a row; of forge's own columns, in how many rows."""
        for column in left:
            if column not in self._own:
                self._foreign.add(column)
                self._left[column] = 0
                continue
            value, rows = raw[column], self._left.get(column, 0) + 1
            for taken in self.taken:
                if raw.get(taken) == value:
                    rows -= 1
                    break
            self._left[column] = rows


def several(name: str, *columns: str) -> BadRow:
    """Return the verdict on a row that has several columns for the same thing."""
    return BadRow(
        f"has several columns that could be its {name}",
        " and ".join(map(repr, columns)),
        f'say which: [data] columns = {{ {name} = "{columns[0]}" }}',
    )


def nothing(raw: Mapping[str, Any], column: str) -> BadRow:
    """Return the verdict on a row that has nothing in a column."""
    if isinstance(raw.get(column), str):
        return BadRow(f"has an empty text in {column!r}")
    if raw.get(column) is not None:
        return BadRow(
            f"has nothing in {column!r}", f"the {'list' if isinstance(raw[column], list) else 'object'} is empty"
        )
    return BadRow(f"has nothing in {column!r}", None if column in raw else f"its columns are {', '.join(raw)}")


def _string(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"has no text in {column!r}", f"it is a {type(value).__name__}")
    return value
