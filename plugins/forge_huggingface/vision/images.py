"""Images of rows: from what a data set calls an image to pixels.

Rows keep references, never pixels: a path, or the bytes of the file. An image is opened twice, once when rows are made
(its size decides how many tokens it takes) and once for each batch, so what cannot be opened is known before a weight
is loaded, by row and number; and a file that changes in between is found out by its hash.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from forge.api import DataError
from forge_huggingface.rows import BadRow, Message, UnfetchedRow, parts_of
from forge_huggingface.vision.colours import WHITE, seen
from forge_huggingface.vision.download import Downloads
from forge_huggingface.vision.pixels import ROW_PIXELS, decode, read, refuse_size
from forge_huggingface.vision.sizes import KEYS, fitted, resized, wishes

if TYPE_CHECKING:
    from forge.api import Job, Run


MARK = "<image>"
"""The place of an image within a text, as LLaVA's data sets write it."""

_KEYS = ("image", "path", "url", "bytes", "image_url", "base64", "data")
_READ = frozenset({"type", "text", "index", *_KEYS, *KEYS})
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that a row refers to.

    Attributes:
        path: Its file, or None if ``bytes`` holds it.
        bytes: The bytes of its file, or None.
        sha256: Their hash.
        width: Its width in pixels, as the model is shown it.
        height: Its height.
        start: Its first token in the row.
        end: The token behind its last.
        background: What lies beneath where it is transparent; None is white.
    """

    path: str | None
    bytes: bytes | None
    sha256: str
    width: int
    height: int
    start: int = 0
    end: int = 0
    background: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the columns of the store."""
        return asdict(self)


class Gallery:
    """Finds and opens the images of a run's rows.

    Args:
        job: The job; paths are looked for in its folder last.
        run: The run; what is downloaded stays in its folder.
        limited: Whether the processor keeps to the job's limits itself.
    """

    def __init__(self, job: Job, run: Run, *, limited: bool = False) -> None:
        self.folder = job.folder.resolve()
        self.background = job.data.image_background
        limits = {"min_pixels": job.data.min_pixels, "max_pixels": job.data.max_pixels}
        self.limits = {} if limited else {key: value for key, value in limits.items() if value is not None}
        self.downloads = Downloads(run.folder / "data" / "images")

    def open_all(self, references: Sequence[Any], folder: Path | None) -> list[tuple[Picture, Any]]:
        """Return the pictures of a row and their pixels, as :meth:`open` does.

        Raises:
            BadRow: One cannot be used, or all together are too large.
        """
        opened: list[tuple[Picture, Any]] = []
        room = ROW_PIXELS
        for number, each in enumerate(references, 1):
            opened.append(self.open(each, folder, number, room))
            room -= opened[-1][0].width * opened[-1][0].height
        return opened

    def open(self, reference: Any, folder: Path | None, number: int, room: int = ROW_PIXELS) -> tuple[Picture, Any]:
        """Return a picture and its pixels (RGB, turned as its EXIF data says).

        Args:
            reference: What the row holds: a path, URL, data URL, base64 text, bytes, a mapping of one, or an image.
            folder: The folder of the row's file, where relative paths start.
            number: The number of the image in its row, for errors.
            room: How many pixels it may have beside the images before it.

        Raises:
            BadRow: It is not there, or is no image.
        """
        try:
            path, content = self._find(reference, folder)
            data = read(path) if content is None and path is not None else content or b""
            image = decode(data, room, self.background or WHITE)
            wish = {**self.limits, **(wishes(reference) if isinstance(reference, Mapping) else {})}
            size = fitted(image.size, wish)
            refuse_size(*size, room)
            image = resized(image, size)
        except BadRow as bad:
            name = f" ({_shorten(reference)})" if isinstance(reference, str) else ""
            kind = UnfetchedRow if isinstance(bad, UnfetchedRow) else BadRow
            raise kind(f"has an image that cannot be used: image {number}{name} {bad.what}", bad.why, bad.do) from bad
        sha = hashlib.sha256(data).hexdigest()
        where = str(path) if path else None
        return Picture(where, content, sha, image.width, image.height, background=self.background), image

    def _find(self, reference: Any, folder: Path | None) -> tuple[Path | None, bytes | None]:
        """Return where an image's bytes are: a file, or here."""
        if isinstance(reference, Mapping):
            return self._find(_value(reference), folder)
        if isinstance(reference, bytes | bytearray | memoryview):
            return None, bytes(reference)
        if isinstance(reference, Path):
            return self._file(str(reference), folder), None
        if isinstance(reference, str):
            return self._text(reference, folder)
        if hasattr(reference, "save") and hasattr(reference, "mode"):  # an image of Pillow's
            buffer = io.BytesIO()
            seen(reference, self.background or WHITE).save(buffer, "PNG")
            return None, buffer.getvalue()
        raise BadRow("is no image", f"it is a {type(reference).__name__}", "give a path, a URL, bytes or base64")

    def _text(self, text: str, folder: Path | None) -> tuple[Path | None, bytes | None]:
        if not text.strip():
            raise BadRow("is empty")
        if text.startswith("data:"):
            head, comma, body = text.partition(",")
            if not comma or not head.endswith(";base64"):
                raise BadRow("is a data URL without base64", None, "write data:image/png;base64,…")
            return None, _unbase64(body)
        if re.match(r"https?://", text, re.IGNORECASE):
            return self.downloads.get(text), None
        if re.match(r"file://", text, re.IGNORECASE):
            return self._file(_local(text), folder), None
        if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text):
            raise BadRow(f"has a URL of the kind {scheme[1]}", "only http, https and file are read")
        if len(text) > 4096:  # no path is that long
            return None, _unbase64(text)
        try:
            return self._file(text, folder), None
        except BadRow:
            if _BASE64.fullmatch(text):
                return None, _unbase64(text)
            raise

    def _file(self, text: str, folder: Path | None) -> Path:
        path = Path(text)
        with suppress(RuntimeError):  # a name that begins with ~ and is no user's
            path = path.expanduser()
        places = [each for each in dict.fromkeys([folder, self.folder]) if each is not None]
        for candidate in [path] if path.is_absolute() else [place / path for place in places]:
            try:
                if candidate.is_file():
                    return candidate
            except OSError as error:  # a name that is too long, or a folder that nobody may look into
                if error.errno == errno.ENAMETOOLONG:
                    break
                raise BadRow("cannot be read", error.strerror or str(error)) from error
        where = " or ".join(map(str, places))
        raise BadRow(
            "was not found",
            None if path.is_absolute() else f"it was looked for in {where}",
            "image paths start at the folder of the data file",
        )


def reopen(picture: Mapping[str, Any]) -> Any:
    """Return the pixels of a picture of the store. Raises :class:`DataError` if it is not the image that it was."""
    path = picture["path"]
    try:
        data = picture["bytes"] if path is None else read(Path(path))
    except BadRow as bad:
        what = f"the image {path} is not there any more" if not Path(path).exists() else f"the image {path} {bad.what}"
        raise DataError(what, bad.why, "restore it, then `forge resume`") from bad
    if hashlib.sha256(data).hexdigest() != picture["sha256"]:
        raise DataError(
            f"the image {path} is not what it was",
            "it changed since the rows were made",
            "restore it, then `forge resume`, or start a new run",
        )
    image = decode(data, background=picture.get("background") or WHITE)
    return resized(image, (picture["width"], picture["height"]))


def seat(messages: Sequence[Message], given: Sequence[Any]) -> tuple[list[Message], tuple[Any, ...]]:
    """Give every image its place in a conversation.

    Args:
        messages: The messages; contents are strings, or lists of parts if they have images.
        given: The images of the row's own column, in order.

    Returns:
        The messages, image parts empty; and the images in the order of their places.

    Raises:
        BadRow: Places and images are not equally many.
    """
    if not given and not any(isinstance(message["content"], list) for message in messages):
        return list(messages), ()
    seated = [dict(message) for message in messages]
    if given and not any(part["type"] == "image" for message in seated for part in parts_of(message["content"])):
        marked = [message for message in seated if MARK in str(message["content"])]
        if marked:
            for message in marked:
                message["content"] = _split(str(message["content"]))
        else:
            first = next((message for message in seated if message["role"] == "user"), seated[0])
            first["content"] = [{"type": "image"}] * len(given) + parts_of(first["content"])
    pool, pictures, places = iter(given), [], 0
    for number, message in enumerate(seated, 1):
        if not isinstance(message["content"], list):
            continue
        for part in message["content"]:
            if part["type"] != "image":
                continue
            if message["role"] == "assistant":
                raise BadRow("has an image in an answer", f"message {number}", "only text can be learnt")
            places += 1
            reference = part.get("image")
            pictures.append(next(pool, None) if reference is None else reference)
        message["content"] = [{"type": "image"} if part["type"] == "image" else part for part in message["content"]]
    if any(picture is None for picture in pictures) or next(pool, None) is not None:
        there = len(given) + sum(
            part.get("image") is not None for message in messages for part in parts_of(message["content"])
        )
        raise BadRow(f"has {there} images and {places} places for them", None, "give each image one place")
    return seated, tuple(pictures)


def listed(value: Any) -> list[Any]:
    """Return the images of a row's column: a list of them, or a single one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        return [value]
    return list(value)


def reference(part: Mapping[str, Any]) -> Any:
    """Return what an image part of a message refers to, with what it says of its size; None if it is only a place.

    Raises:
        BadRow: It has keys that nothing reads.
    """
    if unread := [key for key, value in part.items() if key not in _READ and value not in (None, "auto")]:
        raise BadRow(f"has an image with {', '.join(map(repr, unread))}", "nothing reads it", "remove it")
    value, wish = _value(part, needed=False), wishes(part)
    return {"image": value, **wish} if value is not None and wish else value


def marks(messages: Sequence[Message]) -> int:
    """Return how many places for images are written into texts, where none is filled."""
    return sum(str(message["content"]).count(MARK) for message in messages if message["role"] != "assistant")


def _value(holder: Mapping[str, Any], *, needed: bool = True) -> Any:
    content = holder.get("bytes")
    if content is not None:  # as `datasets` holds an image: the path beside it is a name only
        return _maybe_base64(content)
    for key in _KEYS:
        value = holder.get(key)
        if value is not None:
            return _maybe_base64(value) if key in {"base64", "data"} else value
    if needed:
        raise BadRow(
            "is an object without an image",
            f"its keys are {', '.join(map(str, holder))}",
            f"name it {', '.join(_KEYS[:4])}",
        )
    return None


def _maybe_base64(value: Any) -> Any:
    return _unbase64(value) if isinstance(value, str) and not value.startswith("data:") else value


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRow("is not base64", str(error)) from error


def _split(text: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(text.split(MARK)):
        parts += [{"type": "image"}] if index else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts


def _local(url: str) -> str:
    """Return the path of a URL of this machine."""
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise BadRow("has a file URL of another machine", parts.netloc, "write file:///path, or the path alone")
    return url2pathname(parts.path)


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]}…{text[-20:]}"
