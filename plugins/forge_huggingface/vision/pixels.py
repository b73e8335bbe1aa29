"""From the file of an image to its pixels.

Files are not trusted. Only raster formats that are decoded by Pillow alone are opened (its EPS reader runs a program),
and an image is refused by the size that its header claims, before it is unpacked.
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from forge.api import first_line
from forge_huggingface.facts.folder import is_of_machine
from forge_huggingface.rows import BadRow
from forge_huggingface.vision.colours import WHITE, seen
from forge_huggingface.vision.download import LARGEST, too_large

if TYPE_CHECKING:
    from pathlib import Path


FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is opened, by Pillow's names."""

PIXELS = 89_478_485
"""The most pixels of an image: Pillow's own bound for a decompression bomb, at which it only warns."""

ROW_PIXELS = 2 * PIXELS
"""The most pixels of all images of a row, which are in memory at once, several times over."""

RATIO = 200
"""How many times the shorter side of an image the longer one may be: some processors scale the shorter one up."""


SEVERAL = "several frames"
"""Where the ``info`` of an image tells whether its file has more of them than the first, which is seen."""


def read(path: Path) -> bytes:
    """Return the bytes of an image's file. Raises :class:`BadRow` if it is too large or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        if is_of_machine(error):
            raise
        raise BadRow("cannot be read", error.strerror or str(error)) from error
    if len(data) > LARGEST:
        raise too_large()
    return data


def decode(data: bytes, room: int = ROW_PIXELS, background: str = WHITE) -> Any:
    """Return the pixels of an image file.

    Args:
        data: The bytes of the file.
        room: The most pixels beside the other images of the row.
        background: What lies beneath where it is transparent.

    Raises:
        BadRow: It is no image, damaged, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    if len(data) > LARGEST:
        raise too_large()
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged notes beside the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=known) as image:
                refuse_size(image.width, image.height, room)
                found = seen(image, background)
                found.info[SEVERAL] = _several(image)
                return found
    except BadRow:
        raise
    except UnidentifiedImageError as error:
        start = data[:16]
        raise BadRow(
            "is no image", f"it begins with {start!r}" if start else "it is empty", f"use one of {', '.join(FORMATS)}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRow("is too large", first_line(error), "make it smaller") from error
    except MemoryError as error:
        raise BadRow("is too large", "its pixels do not fit into memory", "make it smaller") from error
    except Exception as error:
        # What Pillow's decoders raise on files that are cut short or damaged is of any kind.
        raise BadRow("is damaged", first_line(error)) from error


def _several(image: Any) -> bool:
    """Whether a file has several frames or pages. Photos of phones (MPO) have a second one that is no picture."""
    with suppress(Exception):  # what comes behind the first frame may be damaged, and is not needed
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return False


def refuse_size(width: int, height: int, room: int) -> None:
    """Refuse an image by its size: that which its header claims, or which is asked for. Raises :class:`BadRow`."""
    pixels = width * height
    if pixels > PIXELS:
        raise BadRow("is too large", f"it has {pixels} pixels, the most is {PIXELS}", "make it smaller")
    if pixels > room:
        why = (
            f"it has {pixels} pixels, and the images of a row may have {ROW_PIXELS} together, of which {room} are left"
        )
        raise BadRow("is too much", why, "make them smaller, or take fewer")
    if max(width, height) > RATIO * min(width, height):
        why = f"it is {width} by {height}, and one side may be {RATIO} times the other at most"
        raise BadRow("is too narrow", why, "cut it")
