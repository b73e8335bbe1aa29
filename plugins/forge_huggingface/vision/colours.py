"""From what an image file holds to what a model sees: three channels of 8 bit, as a person would see them.

Pillow's own conversion drops transparency, which leaves whatever colour lay beneath, mostly black, and cuts levels of
more than 8 bit at 255, which leaves white.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = "white"
"""What a transparent image lies on, as on a page; so Qwen's own utilities and vLLM do it, and answers are asked so."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""The TIFF tags of how many bits a level has, of what its lowest one is, and of what numbers there are."""
_WHITE_IS_ZERO, _SIGNED = 0, 2


def seen(image: Image, background: str = WHITE) -> Image:
    """Return an image in RGB, turned as its EXIF data says.

    Transparent parts lie on the background. Levels of 16 or fewer bits keep their range, as do floats from 0 to 1.

    Args:
        image: The image, in any mode of Pillow's.
        background: Its colour, by Pillow's names or as ``#rrggbb``.

    Raises:
        BadRow: Its levels have a range that is not known.

    >>> from PIL import Image
    >>> seen(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> seen(Image.new("I;16", (1, 1), 32896)).getpixel((0, 0))
    (128, 128, 128)
    """
    from PIL import Image, ImageColor, ImageOps

    bits, inverted = _depth(image), _tiff(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    image = ImageOps.exif_transpose(image)
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _levels(image, bits, background, inverted=inverted)
    if image.mode == "LAB":
        from PIL import ImageCms

        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if image.has_transparency_data:
        if image.mode in {"RGBa", "La"}:  # premultiplied
            image = image.convert(image.mode.upper())
        ground = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _levels(image: Image, bits: int | None, background: str, *, inverted: bool) -> Image:
    """Return grey levels of more than 8 bit, which Pillow leaves as they are where the lowest one is white."""
    import numpy as np
    from PIL import Image, ImageColor

    values = np.asarray(image).astype(np.float64 if image.mode == "I" else np.float32)
    if image.mode == "F":
        top, known = 1.0, bool(np.isfinite(values).all()) and values.min() >= 0 and values.max() <= 1
    else:
        top = float(2**bits - 1) if bits else 0.0
        known = bits is not None and values.min() >= 0 and values.max() <= top
    if not known:
        raise BadRow(
            "has levels of grey whose range is not known",
            f"they are {'floats' if image.mode == 'F' else 'whole numbers'} from {values.min():g} to {values.max():g}",
            "save it with 8 or 16 bit a level",
        )
    grey = np.rint((top - values if inverted else values) * (255 / top)).astype(np.uint8)
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    key = image.info.get("transparency")
    if isinstance(key, int):  # one level of grey stands for what is transparent
        pixels[values == key] = ImageColor.getrgb(background)[:3]
    return Image.fromarray(pixels, "RGB")


def _depth(image: Image) -> int | None:
    """Return how many bits a level of grey has, or None if the file does not say."""
    if image.format == "TIFF":
        bits = _tiff(image, _BITS_PER_SAMPLE) or 0
        return bits if 0 < bits <= 16 and _tiff(image, _SAMPLE_FORMAT) != _SIGNED else None
    if image.mode == "I":  # PNG and PPM have at most 16 bit, and Pillow spreads PPM's over them
        return 16 if image.format in {"PNG", "PPM"} else None
    return 16


def _tiff(image: Image, tag: int) -> int | None:
    """Return the first value of a tag of a TIFF file; None of other files, or where it is not there."""
    found = getattr(image, "tag_v2", {}).get(tag)
    return int(found[0] if isinstance(found, tuple) else found) if found is not None else None
