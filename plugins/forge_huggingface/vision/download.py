"""Fetch images from the web, once for each run.

What a data set links to is kept beside the rows, so that later epochs and a resumed run do not ask again, and get the
same picture even if the link has changed its mind.
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.request
from pathlib import Path

from forge_huggingface.rows import BadRow

SECONDS = 20.0
"""How long a server may be silent."""

LARGEST = 64 * 2**20
"""The most bytes that are fetched for one image."""

_TRIES = 2
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


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
        if offline():
            raise BadRow("cannot be fetched", "forge is offline (HF_HUB_OFFLINE)",
                         "go online once, or give the image as a file")  # fmt: skip
        content = _fetch(url)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
        return path


def offline() -> bool:
    """Whether the environment forbids the network."""
    return any(os.environ.get(name, "").strip().upper() in {"1", "TRUE", "YES", "ON"} for name in _OFFLINE)


def _fetch(url: str) -> bytes:
    # urlopen would also follow ftp and file links; this opener knows http and https only.
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
                    urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler,
                    urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler):  # fmt: skip
        opener.add_handler(handler())
    try:
        asked = urllib.request.Request(url, headers={"User-Agent": "forge-train"})  # noqa: S310 - see the opener
    except ValueError as error:
        raise BadRow("cannot be fetched", str(error), "mend the URL") from error
    reason = ""
    for attempt in range(_TRIES):
        try:
            with opener.open(asked, timeout=SECONDS) as answer:
                content: bytes = answer.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise BadRow("is too large", f"more than {LARGEST >> 20} MiB")
            return content
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, ValueError) as error:  # URLError, time-outs, broken answers, hosts that are none
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < _TRIES:
            time.sleep(0.5)
    raise BadRow("cannot be fetched", reason, "mend the URL, or give the image as a file")
