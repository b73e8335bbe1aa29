"""How large a model is shown an image: limits of the job, and of one image, by the names of Qwen's rows.

The image itself is made smaller or larger before the processor gets it, whose own steps follow. So the limits mean the
same for every family, and training, evaluation and chat show the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from PIL.Image import Image

KEYS = ("min_pixels", "max_pixels", "resized_width", "resized_height")
"""What an image of a row may say of its size."""


def wishes(part: Mapping[str, Any]) -> dict[str, int]:
    """Return what an image says of its size.

    Raises:
        BadRow: A value is no whole number of pixels, or half of a size is missing.
    """
    found = {key: part[key] for key in KEYS if part.get(key) is not None}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value != int(value):
            raise BadRow(f"has {key} = {value!r}", "it is a number of pixels", "write a whole number above 0")
    if ("resized_width" in found) != ("resized_height" in found):
        raise BadRow("has one side of a size", ", ".join(found), "write resized_width and resized_height")
    return {key: int(value) for key, value in found.items()}


def fitted(size: tuple[int, int], wish: Mapping[str, int]) -> tuple[int, int]:
    """Return the width and height of an image, its sides in the same ratio unless both are named.

    >>> fitted((4000, 3000), {"max_pixels": 1_000_000})
    (1154, 866)
    >>> fitted((10, 10), {"min_pixels": 400})
    (20, 20)
    """
    width, height = size
    if "resized_width" in wish:
        return wish["resized_width"], wish["resized_height"]
    most, least = wish.get("max_pixels"), wish.get("min_pixels")
    if most is not None and width * height > most:
        scale = math.sqrt(most / (width * height))
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    if least is not None and width * height < least:
        scale = math.sqrt(least / (width * height))
        return math.ceil(width * scale), math.ceil(height * scale)
    return size


def resized(image: Image, size: tuple[int, int]) -> Image:
    """Return an image of a size; the same one where it has it already."""
    from PIL.Image import Resampling

    return image if image.size == tuple(size) else image.resize(tuple(size), Resampling.BICUBIC)
