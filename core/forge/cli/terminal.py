"""The one way to standard output and standard error, for what forge says and for what others do.

What is shown is text of others in good part: rows, answers, names of files, messages of libraries. None of it may make
the terminal do anything, whatever its encoding is, and no login may stand in a message. So :func:`standard_streams`
puts a :class:`Screen` in the place of both streams, and colours come from :func:`say`.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from forge.masking import masked
from forge.text.visible import numbered, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

NUMBERED = "forge-numbered"
"""What an encoding does with letters that it does not have: they are shown by their numbers, as unseen ones are."""


class Unwritable(OSError):  # noqa: N818 - a state of the stream
    """Standard output takes nothing: its disk is full, or it is closed."""


class Door:
    """A standard stream that may come to take nothing more.

    Args:
        stream: The stream; None if the process has none.
        lost: Called with the error then, once: what is written later is dropped. Without it, the error is raised.
    """

    def __init__(self, stream: TextIO | None, lost: Callable[[OSError], None] | None = None) -> None:
        self.stream, self.lost = stream, lost
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text as it is."""
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what has been written."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether a person watches."""
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        """Return the stream's number."""
        if self.stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.stream.fileno()

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        """What is done with letters that the encoding does not have."""
        return getattr(self.stream, "errors", None) or NUMBERED

    def _try(self, act: Callable[[TextIO], object]) -> None:
        if self.fault is None:
            try:
                if self.stream is None:
                    raise OSError(errno.EBADF, "it is closed")
                act(self.stream)
                return
            except OSError as error:
                self.fault = error
                self._silence()
                if self.lost is not None:
                    self.lost(error)
        if self.lost is None:  # each time: click tries a stream before it uses it
            kind = type(self.fault) if isinstance(self.fault, BrokenPipeError) else Unwritable
            raise kind(*self.fault.args)

    def _silence(self) -> None:
        """Let what is still to be written go nowhere: Python would complain of it at its end."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


class Screen:
    """A standard stream for everybody: nothing that is printed can do anything, and no login is shown.

    Args:
        door: Where it goes; :func:`say` goes there itself, with forge's own colours.
    """

    def __init__(self, door: Door) -> None:
        self.door = door

    def write(self, text: str) -> int:
        """Write a text."""
        self.door.write(shown(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> io.RawIOBase:
        """The stream for bytes, which click looks for: to the same end."""
        if sys.platform == "win32" and self.isatty():  # click would take it for the console, past this screen
            raise AttributeError("buffer")
        return _Bytes(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.door, name)


class _Bytes(io.RawIOBase):
    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.screen.write(bytes(data).decode(errors="surrogateescape"))
        return len(data)

    def flush(self) -> None:
        self.screen.flush()


@contextmanager
def standard_streams() -> Iterator[None]:
    """Put screens in the place of the standard streams, for as long as a command runs."""
    for number in range(3):  # a file that is opened later must not become a standard stream by its number
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(NUMBERED, _numbered)
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=NUMBERED)
    sys.stdout = Screen(Door(sys.stdout))
    sys.stderr = Screen(Door(sys.stderr, lost=lambda _error: None))  # there is nowhere to tell it
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _numbered(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return numbered(error.object[error.start : error.end]), error.end


def shown(text: str) -> str:
    """Return a message as it may stand on a terminal: it does nothing there, and shows no login."""
    return visible(masked(text))


def door(*, err: bool = False) -> Any:
    """Return the way to a standard stream for who has made others' text visible himself."""
    stream = sys.stderr if err else sys.stdout
    return stream.door if isinstance(stream, Screen) else stream


def say(text: object = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print a text, in colours on a terminal.

    Args:
        text: The text; what others wrote in it cannot do anything.
        err: On standard error, where messages stand: logins in them are hidden.
        nl: Whether the line ends.
        style: As :func:`click.style` takes it.
    """
    words = shown(str(text)) if err else visible(str(text))
    click.echo(click.style(words, **style) if style else words, file=door(err=err), nl=nl)
