"""Fetch images from the web, once for each run.

What a data set links to is kept beside the rows, so that later epochs and a resumed run do not ask again, and get the
same picture even if the link has changed its mind.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from forge.api import DataError, first_line
from forge_huggingface.facts.lookup import is_offline
from forge_huggingface.rows import BadRow, UnfetchedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


CONNECTING = 10.0
"""How many seconds a host may take to answer at all."""

SECONDS = 20.0
"""How many seconds a server may be silent."""

DEADLINE = 120.0
"""How many seconds an image may take, however busily it is sent."""

LARGEST = 64 * 2**20
"""The most bytes of the file of one image."""

HOST_FAILURES = 5
"""How many images in a row a host may fail to send before it is asked no more."""

FAILURES = 20
"""How many images may fail before the first one comes; then it is the network, and no row's fault."""

_TRIES = 2
_HEADERS = {"User-Agent": "forge-train"}
_MEND = "mend the URL, or give the image as a file"

T = TypeVar("T")


class _SilentError(Exception):
    """A host gave no answer, or none that is whole."""


class Downloads:
    """Files from the web, by URL.

    What failed is not asked for again, and a host that fails again and again is left alone.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._refused: dict[str, BadRow] = {}
        self._failures: dict[str, int] = {}  # by host, since it last sent something
        self._failed: int | None = 0  # images, as long as none has come

    def get(self, url: str) -> Path:
        """Return the file of a URL, fetched if it is not here yet.

        Raises:
            UnfetchedRow: It cannot be had.
            DataError: Nothing can be.
        """
        path = self.folder / hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()
        if path.is_file():
            return path
        if is_offline(data=True):
            why, say = "forge is offline (HF_HUB_OFFLINE)", "go online once, or give the image as a file"
            raise UnfetchedRow("cannot be fetched", why, say)
        if (known := self._refused.get(url)) is not None:
            raise UnfetchedRow(known.what, known.why, known.do)
        try:
            content = self._ask(url)
        except BadRow as bad:
            self._refused[url] = bad
            raise
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
        return path

    def _ask(self, url: str) -> bytes:
        host = _host(url)
        count = self._failures.get(host, 0)
        if count >= HOST_FAILURES:
            why = f"{host} has failed for {count} images, and is asked no more"
            raise UnfetchedRow("cannot be fetched", why, "give the images as files, or drop their rows")
        try:
            content = _fetch(url, tries=1 if count else _TRIES)
        except _SilentError as error:
            self._failures[host] = count + 1
            if self._failed is not None:
                self._failed += 1
                if self._failed >= FAILURES:
                    raise DataError(
                        "no image can be fetched",
                        f"{self._failed} were tried, the last from {host}: {error}",
                        "see whether this machine reaches the web, or give the images as files",
                    ) from error
            raise UnfetchedRow("cannot be fetched", str(error), _MEND) from error
        self._failures[host], self._failed = 0, None
        return content


def _host(url: str) -> str:
    """Return the host of a URL, without a login."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return url


def _fetch(url: str, tries: int) -> bytes:
    """Return what a URL stands for. Raises :class:`BadRow` if it is refused, and :class:`_SilentError`."""
    reason = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(0.5)
        try:
            return _within(DEADLINE, lambda: _once(url))
        except _SilentError as error:
            reason = str(error)
    raise _SilentError(reason)


def _once(url: str) -> bytes:
    httpx = _httpx()
    try:
        # Auth() sends nothing: neither a login that stands in the URL nor one of this machine.
        with httpx.stream(
            "GET",
            url,
            headers=_HEADERS,
            auth=httpx.Auth(),
            timeout=httpx.Timeout(SECONDS, connect=CONNECTING),
            follow_redirects=True,
        ) as answer:
            if answer.is_success:
                return _limited(answer.iter_bytes())
    except (BadRow, MemoryError):
        raise
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
        raise UnfetchedRow("cannot be fetched", first_line(error), _MEND) from error
    except Exception as error:  # time-outs, broken answers, hosts that are none: the library has no single kind
        raise _SilentError(first_line(error)) from error
    reason = f"the server says {answer.status_code} {answer.reason_phrase}"
    if answer.status_code < 500 and answer.status_code != 429:
        raise UnfetchedRow("cannot be fetched", reason, _MEND)
    raise _SilentError(reason)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, in a thread that is left to itself if it takes too long.

    The library's time-outs begin anew with every byte, so a server that sends one a second has them wait for days.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.result(seconds)
    except FutureTimeoutError as error:
        raise _SilentError(f"it was not whole after {seconds:g} seconds") from error


def _limited(pieces: Iterable[bytes]) -> bytes:
    """Put a file together as long as it is not too large: a server may say less than it sends, or nothing."""
    content, end = bytearray(), time.monotonic() + DEADLINE
    for piece in pieces:
        content += piece
        if len(content) > LARGEST:
            raise too_large()
        if time.monotonic() > end:  # nobody waits for it any more
            raise _SilentError("it takes too long")
    return bytes(content)


def too_large() -> BadRow:
    """Return the verdict on a row with an image whose file is larger than may be."""
    return BadRow("is too large", f"more than {LARGEST >> 20} MiB", "make it smaller")


def _httpx() -> Any:
    """Return the HTTP library that huggingface_hub brings: httpx2 under hub 2, httpx under hub 1."""
    return importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")
