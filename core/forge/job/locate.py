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
    from collections.abc import Sequence


Key = tuple[str | int, ...]


_Path = tuple[str | int, ...]

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
    lines = _Scanner(text).scan()
    for length in range(len(path), 0, -1):
        line = lines.get(tuple(path[:length]))
        if line is not None:
            return line
    return None


class _LostError(Exception):
    """The text is not what the scanner took it for."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[_Path, int] = {}
        self.last: dict[_Path, int] = {}  # the index of the newest element of each array of tables

    def scan(self) -> dict[_Path, int]:
        """Return the line of every key."""
        table: _Path = ()
        try:
            while self.skip_blank():
                if self.text.startswith("[", self.at):
                    table = self.header()
                else:
                    self.pair(table)
        except _LostError:
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
        return self.text.count("\n", 0, self.at) + 1

    def key(self) -> list[str]:
        parts = []
        while True:
            token = self.take(_KEY)[1]
            parts.append(_unquote(token))
            if not self.eat("."):
                return parts

    def header(self) -> _Path:
        line = self.line()
        array = self.eat("[[")
        if not array:
            self.need("[")
        parts = self.key()
        self.need("]]" if array else "]")
        table: _Path = ()
        for part in parts[:-1]:
            table = self.into((*table, part), line)
        table = (*table, parts[-1])
        if array:
            self.last[table] = self.last.get(table, -1) + 1
            self.lines.setdefault(table, line)
            table = (*table, self.last[table])
        self.lines[table] = line  # also where an earlier [a.b] has implied it
        return table

    def into(self, table: _Path, line: int) -> _Path:
        """Note a table on the way to another, and step into the newest element if it is an array."""
        self.lines.setdefault(table, line)
        return (*table, self.last[table]) if table in self.last else table

    def pair(self, table: _Path) -> None:
        line = self.line()
        for part in self.key():
            table = (*table, part)
            self.lines.setdefault(table, line)
        self.need("=")
        self.value(table)

    def value(self, path: _Path) -> None:
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
