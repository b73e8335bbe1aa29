"""Fetch images from the web, once for each run.

What a data set links to is kept beside the rows, so that later epochs and a resumed run do not ask again, and get the
same picture even if the link has changed its mind.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import first_line
from forge_huggingface.facts.lookup import is_offline
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = 20.0
"""How long a server may be silent."""

LARGEST = 64 * 2**20
"""The most bytes that are fetched for one image."""

_TRIES = 2
_HEADERS = {"User-Agent": "forge-train"}


class Downloads:
    """Files from the web, by URL.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, url: str) -> Path:
        """Return the file of a URL, fetched if it is not here yet. Raises :class:`BadRow` if it cannot be had."""
        path = self.folder / hashlib.sha256(url.encode()).hexdigest()
        if path.is_file():
            return path
        if is_offline(data=True):
            why, say = "forge is offline (HF_HUB_OFFLINE)", "go online once, or give the image as a file"
            raise BadRow("cannot be fetched", why, say)
        content = _fetch(url)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
        return path


def _fetch(url: str) -> bytes:
    httpx = _httpx()
    wrong = "mend the URL, or give the image as a file"
    reason = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.5)
        try:
            # Auth() sends nothing: neither a login that stands in the URL nor one of this machine.
            with httpx.stream(
                "GET", url, headers=_HEADERS, auth=httpx.Auth(), timeout=SECONDS, follow_redirects=True
            ) as answer:
                if answer.is_success:
                    return _limited(answer.iter_bytes())
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise BadRow("cannot be fetched", first_line(error), wrong) from error
        except (httpx.HTTPError, OSError) as error:  # time-outs, broken answers, hosts that are none
            reason = first_line(error)
            continue
        reason = f"the server says {answer.status_code} {answer.reason_phrase}"
        if answer.status_code < 500 and answer.status_code != 429:
            break
    raise BadRow("cannot be fetched", reason, wrong)


def _limited(pieces: Iterable[bytes]) -> bytes:
    """Put a file together as long as it is not too large: a server may say less than it sends, or nothing."""
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > LARGEST:
            raise BadRow("is too large", f"more than {LARGEST >> 20} MiB")
    return bytes(content)


def _httpx() -> Any:
    """Return the HTTP library that huggingface_hub brings: httpx2 under hub 2, httpx under hub 1."""
    return importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")
