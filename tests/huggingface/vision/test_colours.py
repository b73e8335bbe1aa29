"""Pictures of every kind that files hold, against what a person sees in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forge_huggingface.rows import BadRow
from forge_huggingface.vision.colours import seen

LEFT, RIGHT = (200, 30, 60), (10, 120, 240)


def halves(left: Any, right: Any, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    """Return 8 x 8 pixels, the left half of one value and the right half of another."""
    wide = np.zeros((8, 8, *np.shape(left)), dtype)
    wide[:, :4], wide[:, 4:] = left, right
    return wide


def stored(image: Image.Image, form: str = "PNG", **options: Any) -> Image.Image:
    """Return an image as a file of a format gives it back."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def picture(left: Any, right: Any, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(halves(left, right))
    return image.convert(mode) if mode else image


def palette(*colours: tuple[int, ...]) -> Image.Image:
    image = Image.new("P", (8, 8))
    image.putpalette([level for colour in colours for level in colour])
    image.putdata(halves(0, 1).ravel().tolist())
    return image


def netpbm(head: str, levels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.open(io.BytesIO(head.encode() + levels.tobytes()))


def tiff_of_12_bit() -> Image.Image:
    """Return a TIFF of 8 x 8 pixels whose levels of 12 bit are packed, three bytes for two."""
    levels = halves(0, 4095, np.uint16).ravel()
    packed = b"".join(
        bytes((int(a) >> 4, (int(a) & 15) << 4 | int(b) >> 8, int(b) & 255))
        for a, b in zip(levels[::2], levels[1::2], strict=True)
    )
    entries = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
        (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, len(packed)),
    ]  # fmt: skip
    head = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed + len(entries).to_bytes(2, "little")
    body = b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + count.to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, count, value in entries
    )
    return Image.open(io.BytesIO(head + body + bytes(4)))


CLEAR = (0, 0, 0, 0)
BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (128, 128, 128)
CASES: dict[str, tuple[Callable[[], Image.Image], Any, Any]] = {
    "RGB": (lambda: stored(picture(LEFT, RIGHT)), LEFT, RIGHT),
    "RGBA, black letters on nothing": (lambda: stored(picture((*BLACK, 255), CLEAR)), BLACK, WHITE),
    "RGBA, half of it": (lambda: stored(picture((*BLACK, 128), (*LEFT, 255))), (127, 127, 127), LEFT),
    "RGBA in WebP": (lambda: stored(picture((*BLACK, 255), CLEAR), "WEBP", lossless=True), BLACK, WHITE),
    "RGBA in TIFF": (lambda: stored(picture((*BLACK, 255), CLEAR), "TIFF"), BLACK, WHITE),
    "RGBA, premultiplied": (lambda: picture((*BLACK, 255), CLEAR, "RGBa"), BLACK, WHITE),
    "RGB with one clear colour": (lambda: stored(picture(LEFT, BLACK), transparency=BLACK), LEFT, WHITE),
    "grey": (lambda: stored(picture(0, 128)), BLACK, GREY),
    "grey and alpha": (lambda: stored(Image.merge("LA", (picture(0, 0), picture(255, 0)))), BLACK, WHITE),
    "grey and alpha, premultiplied": (
        lambda: Image.merge("LA", (picture(0, 0), picture(255, 0))).convert("La"),
        BLACK,
        WHITE,
    ),
    "grey with one clear level": (lambda: stored(picture(255, 0), transparency=0), WHITE, WHITE),
    "black and white": (lambda: stored(picture(0, 255).convert("1")), BLACK, WHITE),
    "palette": (lambda: stored(palette(LEFT, RIGHT)), LEFT, RIGHT),
    "palette with a clear colour": (lambda: stored(palette(BLACK, LEFT), transparency=0), WHITE, LEFT),
    "palette with alphas": (lambda: stored(palette(BLACK, LEFT), transparency=bytes((0, 255))), WHITE, LEFT),
    "palette in GIF with a clear colour": (lambda: stored(palette(BLACK, LEFT), "GIF", transparency=0), WHITE, LEFT),
    "palette and alpha": (lambda: stored(palette(BLACK, LEFT)).convert("PA"), BLACK, LEFT),
    "grey of 16 bit in PNG": (lambda: stored(Image.fromarray(halves(0, 32896, np.uint16))), BLACK, GREY),
    "grey of 16 bit in PNG, one clear level": (
        lambda: stored(Image.fromarray(halves(0, 65535, np.uint16)), transparency=0),
        WHITE,
        WHITE,
    ),
    "grey of 16 bit in TIFF": (lambda: stored(Image.fromarray(halves(0, 32896, np.uint16)), "TIFF"), BLACK, GREY),
    "grey of 12 bit in TIFF": (tiff_of_12_bit, BLACK, WHITE),
    "grey of 16 bit in JPEG 2000": (
        lambda: stored(Image.fromarray(halves(0, 65535, np.uint16)), "JPEG2000"),
        BLACK,
        WHITE,
    ),
    "grey of 12 bit in PGM": (lambda: netpbm("P5 8 8 4095\n", halves(0, 4095, ">u2")), BLACK, WHITE),
    "grey of 16 bit in PGM": (lambda: netpbm("P5 8 8 65535\n", halves(0, 32896, ">u2")), BLACK, GREY),
    "floats from 0 to 1": (lambda: stored(Image.fromarray(halves(0, 1, np.float32)), "TIFF"), BLACK, WHITE),
    "CMYK": (lambda: stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0), (255, 0, 0)),
    "YCbCr": (lambda: stored(Image.new("YCbCr", (8, 8), (128, 128, 128)), "TIFF"), GREY, GREY),
    "HSV": (lambda: Image.new("HSV", (8, 8), (0, 255, 255)), (255, 0, 0), (255, 0, 0)),
    "Lab": (lambda: stored(Image.new("LAB", (8, 8), (255, 128, 128)), "TIFF"), WHITE, WHITE),
}


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_what_a_person_sees(name: str) -> None:
    make, left, right = CASES[name]
    found = seen(make())
    assert found.mode == "RGB"
    assert found.size == (8, 8)
    pixels = np.asarray(found).astype(int)
    assert abs(pixels[:, :4].mean((0, 1)) - left).max() <= 1
    assert abs(pixels[:, 4:].mean((0, 1)) - right).max() <= 1


def test_a_transparent_picture_lies_on_the_colour_of_the_job() -> None:
    found = seen(stored(picture((*BLACK, 255), CLEAR)), "#ff8000")
    assert (found.getpixel((0, 0)), found.getpixel((7, 0))) == (BLACK, (255, 128, 0))


def test_a_picture_is_turned_as_its_exif_data_says() -> None:
    turned = Image.Exif()
    turned[0x0112] = 3
    found = seen(stored(picture(LEFT, RIGHT), exif=turned))
    assert (found.getpixel((0, 0)), found.getpixel((7, 0))) == (RIGHT, LEFT)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (halves(0.0, 255.0, np.float32), "floats from 0 to 255"),
        (halves(-1.0, 1.0, np.float32), "floats from -1 to 1"),
        (halves(0, 70000, np.int32), "whole numbers from 0 to 70000"),
        (halves(0, 200, np.int32), "whole numbers from 0 to 200"),
    ],
)
def test_levels_of_an_unknown_range_are_refused(levels: Any, said: str) -> None:
    with pytest.raises(BadRow, match="whose range is not known") as caught:
        seen(stored(Image.fromarray(levels), "TIFF"))
    assert said in str(caught.value.why)
