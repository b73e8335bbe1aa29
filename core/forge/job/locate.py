"""Where a key stands in a TOML file.

TOML parsers return values without positions, and an error about a job should name the line. So this small scanner walks
through a text that has already been parsed and notes the line of every key. It runs on the error path only, checks
nothing, and where it is at a loss it stops with what it has found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import tomli

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Key = tuple[str | int, ...]


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:\\.|[^"\\\n])*"|'[^'\n]*'|[\w-]+)[ \t]*""")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?""""{0,2}'''  # up to two quotes may stand before the closing three
    r"""|'''.*?''''{0,2}"""
    r"""|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def locate(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line, from 1, of a key in a TOML text.

    Args:
        text: The text; it parses as TOML.
        path: The key's path, with integers for elements of arrays: ``("export", 0, "format")``.

    Returns:
        The line of the key, or of the nearest table or key around it that is in the text; None if there is none.
    """
    return nearest_line(lines_of(text), tuple(path))


def lines_of(text: str) -> dict[Key, int]:
    """Return the line, from 1, of every key of a TOML text."""
    return _Scanner(text).scan()


def nearest_line(lines: Mapping[Key, int], key: Key) -> int | None:
    """Return the line of a key, or of the nearest table or key around it; None if there is none."""
    return next((lines[key[:length]] for length in range(len(key), 0, -1) if key[:length] in lines), None)


def end_of(text: str) -> int:
    """Return the last line of a text, where what is missing can be written."""
    return text.rstrip("\n").count("\n") + 1


def twice(text: str, line: int) -> tuple[str, int] | None:
    """Return the key that a line of a TOML text gives once more, and the line that gave it first; None if none does.

    Args:
        text: The text; it parses as TOML up to that line.
        line: The line.
    """
    scanner = _Scanner(text)
    scanner.scan()
    return next(((key, first) for key, first, again in scanner.clashes if again == line), None)


class _LostError(Exception):
    """The text is not what the scanner took it for."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self.last: dict[Key, int] = {}  # the index of the newest element of each array of tables
        self.values: dict[Key, int] = {}
        self.headers: dict[Key, int] = {}
        self.clashes: list[tuple[str, int, int]] = []  # a key that comes twice, its first line and the other
        self.counted = (0, 1)  # a place, and its line

    def scan(self) -> dict[Key, int]:
        """Return the line of every key."""
        table: Key = ()
        try:
            while self.skip_blank():
                if self.text.startswith("[", self.at):
                    table = self.header()
                else:
                    self.pair(table)
        except (_LostError, RecursionError):
            pass
        return self.lines

    def skip_blank(self) -> bool:
        self.take(_BLANK)
        return self.at < len(self.text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _LostError
        self.at = match.end()
        return match

    def eat(self, mark: str) -> bool:
        found = self.text.startswith(mark, self.at)
        if found:
            self.at += len(mark)
        return found

    def need(self, mark: str) -> None:
        if not self.eat(mark):
            raise _LostError

    def line(self) -> int:
        at, line = self.counted
        self.counted = self.at, line + self.text.count("\n", at, self.at)
        return self.counted[1]

    def clash(self, key: Key, line: int, there: Mapping[Key, int]) -> None:
        """Note a key that is there already."""
        if key in there:
            self.clashes.append((".".join(map(str, key)), there[key], line))

    def key(self) -> list[str]:
        parts = []
        while True:
            token = self.take(_KEY)[1]
            parts.append(_unquote(token))
            if not self.eat("."):
                return parts

    def header(self) -> Key:
        line = self.line()
        array = self.eat("[[")
        if not array:
            self.need("[")
        parts = self.key()
        self.need("]]" if array else "]")
        table: Key = ()
        for part in parts[:-1]:
            self.clash((*table, part), line, self.values)
            table = self.into((*table, part), line)
        table = (*table, parts[-1])
        self.clash(table, line, self.values)
        self.clash(table, line, self.headers)
        if array:
            self.last[table] = self.last.get(table, -1) + 1
            self.lines.setdefault(table, line)
            table = (*table, self.last[table])
        else:
            self.headers[table] = line
        self.lines[table] = line  # also where an earlier [a.b] has implied it
        return table

    def into(self, table: Key, line: int) -> Key:
        """Note a table on the way to another, and step into the newest element if it is an array."""
        self.lines.setdefault(table, line)
        return (*table, self.last[table]) if table in self.last else table

    def pair(self, table: Key) -> None:
        line = self.line()
        *way, last = self.key()
        for part in way:
            table = (*table, part)
            self.clash(table, line, self.values)
            self.lines.setdefault(table, line)
            self.headers.setdefault(table, line)  # no header may declare it any more
        table = (*table, last)
        self.clash(table, line, self.lines)
        self.lines.setdefault(table, line)
        self.values[table] = line
        self.need("=")
        self.value(table)

    def value(self, path: Key) -> None:
        self.take(_BLANK)
        start = self.text[self.at : self.at + 1]
        if start and start in "\"'":
            self.take(_STRING)
        elif self.eat("["):
            index = 0
            while not self.closed("]"):
                self.lines[(*path, index)] = self.line()
                self.value((*path, index))
                index += 1
                self.separator("]")
        elif self.eat("{"):
            while not self.closed("}"):
                self.pair(path)
                self.separator("}")
        else:
            self.take(_SCALAR)

    def closed(self, mark: str) -> bool:
        self.take(_BLANK)
        return self.eat(mark)

    def separator(self, end: str) -> None:
        self.take(_BLANK)
        if not self.eat(",") and not self.text.startswith(end, self.at):
            raise _LostError


def _unquote(token: str) -> str:
    """Undo the escapes of a quoted key, as the parser itself does."""
    if token[0] not in "\"'":
        return token
    try:
        return next(iter(tomli.loads(f"{token} = 0")))
    except tomli.TOMLDecodeError:  # the text is no TOML, so any answer is a guess
        return token[1:-1]
