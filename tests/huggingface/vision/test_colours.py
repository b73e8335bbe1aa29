"""Pictures of every kind that files hold, against what a person sees in them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

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


def tiff(
    levels: bytes, bits: int, *, lowest: int = 1, numbers: int = 1, order: Literal["little", "big"] = "little"
) -> Image.Image:
    """Return a TIFF of 8 x 8 levels of grey that Pillow would not write.

    Args:
        levels: Its bytes.
        bits: Of a level.
        lowest: Whether the lowest level is white (0) or black (1).
        numbers: Whether levels are unsigned (1) or signed (2).
        order: Of the bytes.
    """
    entries = [
        (256, 3, 8), (257, 3, 8), (258, 3, bits), (259, 3, 1), (262, 3, lowest), (273, 4, 8), (277, 3, 1),
        (278, 3, 8), (279, 4, len(levels)), (339, 3, numbers),
    ]  # fmt: skip

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    head = (b"II*\0" if order == "little" else b"MM\0*") + number(8 + len(levels), 4) + levels
    body = b"".join(
        number(tag, 2) + number(kind, 2) + number(1, 4) + number(value, 2 if kind == 3 else 4).ljust(4, b"\0")
        for tag, kind, value in entries
    )
    return Image.open(io.BytesIO(head + number(len(entries), 2) + body + bytes(4)))


def tiff_of_12_bit() -> Image.Image:
    """Return a TIFF whose levels of 12 bit are packed, three bytes for two."""
    levels = halves(0, 4095, np.uint16).ravel()
    packed = b"".join(
        bytes((int(a) >> 4, (int(a) & 15) << 4 | int(b) >> 8, int(b) & 255))
        for a, b in zip(levels[::2], levels[1::2], strict=True)
    )
    return tiff(packed, 12)


def png(depth: int, kind: int, rows: Sequence[bytes], **chunks: bytes) -> Image.Image:
    """Return a PNG of 8 x 8 pixels that Pillow would not write.

    Args:
        depth: Bits of a level.
        kind: PNG's number of what a pixel holds: 0 grey, 2 RGB, 3 an index, 4 grey and alpha, 6 RGBA.
        rows: The bytes of each row.
        chunks: What stands before the pixels, by its name: ``PLTE``, ``tRNS``.
    """

    def chunk(name: str, content: bytes) -> bytes:
        body = name.encode() + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = {"IHDR": struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 0), **chunks, "IDAT": pixels, "IEND": b""}
    whole = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in parts.items())
    return Image.open(io.BytesIO(whole))


def deep(left: Any, right: Any) -> list[bytes]:
    """Return the rows of a PNG of 16 bit, of levels of 8 bit."""
    return [row.tobytes() for row in halves(np.array(left) * 257, np.array(right) * 257, ">u2")]


def moving(form: str, **options: Any) -> Image.Image:
    """Return a picture of two frames, the second of which is white."""
    white = Image.new("RGB", (8, 8), WHITE)
    return stored(picture(LEFT, RIGHT), form, save_all=True, append_images=[white], **options)


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
    "grey of 16 bit in TIFF, big end first": (
        lambda: tiff(halves(0, 32896, ">u2").tobytes(), 16, order="big"),
        BLACK,
        GREY,
    ),
    "grey of 16 bit in TIFF, white lowest": (
        lambda: tiff(halves(65535, 32639, "<u2").tobytes(), 16, lowest=0),
        BLACK,
        GREY,
    ),
    "grey of 8 bit in TIFF, white lowest": (lambda: tiff(halves(255, 0).tobytes(), 8, lowest=0), BLACK, WHITE),
    "RGB of 16 bit in PNG": (lambda: png(16, 2, deep(LEFT, RIGHT)), LEFT, RIGHT),
    "RGB of 16 bit in PNG, one clear colour": (lambda: png(16, 2, deep(LEFT, BLACK), tRNS=bytes(6)), LEFT, WHITE),
    "RGBA of 16 bit in PNG": (lambda: png(16, 6, deep((*BLACK, 255), CLEAR)), BLACK, WHITE),
    "grey and alpha of 16 bit in PNG": (lambda: png(16, 4, deep((0, 255), (0, 0))), BLACK, WHITE),
    "grey of 1 bit in PNG, one clear level": (lambda: png(1, 0, [b"\x0f"] * 8, tRNS=b"\0\1"), BLACK, WHITE),
    "grey of 2 bit in PNG": (lambda: png(2, 0, [b"\x00\xaa"] * 8), BLACK, (170, 170, 170)),
    "palette of 4 bit in PNG": (lambda: png(4, 3, [b"\0\0\x11\x11"] * 8, PLTE=bytes(LEFT + RIGHT)), LEFT, RIGHT),
    "palette of 1 bit in PNG with alphas": (
        lambda: png(1, 3, [b"\x0f"] * 8, PLTE=bytes(BLACK + LEFT), tRNS=b"\0"),
        WHITE,
        LEFT,
    ),
    "RGB in JPEG": (lambda: stored(picture(LEFT, RIGHT), "JPEG", quality=100, subsampling=0), LEFT, RIGHT),
    "grey in JPEG": (lambda: stored(picture(0, 128), "JPEG", quality=100), BLACK, GREY),
    "CMYK in JPEG": (lambda: stored(picture(LEFT, RIGHT, "CMYK"), "JPEG", quality=100), LEFT, RIGHT),
    "RGBA in JPEG 2000": (lambda: stored(picture((*BLACK, 255), CLEAR), "JPEG2000"), BLACK, WHITE),
    "two frames in GIF": (lambda: moving("GIF"), LEFT, RIGHT),
    "two frames in WebP": (lambda: moving("WEBP", lossless=True), LEFT, RIGHT),
    "two frames in PNG": (lambda: moving("PNG"), LEFT, RIGHT),
    "two pages in TIFF": (lambda: moving("TIFF"), LEFT, RIGHT),
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
    near = 2 if "JPEG" in name else 1
    assert abs(pixels[:, :4].mean((0, 1)) - left).max() <= near
    assert abs(pixels[:, 4:].mean((0, 1)) - right).max() <= near


def test_a_transparent_picture_lies_on_the_colour_of_the_job() -> None:
    found = seen(stored(picture((*BLACK, 255), CLEAR)), "#ff8000")
    assert (found.getpixel((0, 0)), found.getpixel((7, 0))) == (BLACK, (255, 128, 0))


@pytest.mark.parametrize(
    ("orientation", "wanted"),
    [
        (1, [[0, 1, 2], [3, 4, 5]]),
        (2, [[2, 1, 0], [5, 4, 3]]),
        (3, [[5, 4, 3], [2, 1, 0]]),
        (4, [[3, 4, 5], [0, 1, 2]]),
        (5, [[0, 3], [1, 4], [2, 5]]),
        (6, [[3, 0], [4, 1], [5, 2]]),
        (7, [[5, 2], [4, 1], [3, 0]]),
        (8, [[2, 5], [1, 4], [0, 3]]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_is_turned_as_its_exif_data_says(orientation: int, wanted: list[list[int]], dtype: Any) -> None:
    turned = Image.Exif()
    turned[0x0112] = orientation
    step = 40 if dtype == np.uint8 else 40 * 257
    levels = Image.fromarray((np.arange(6).reshape(2, 3) * step).astype(dtype))
    assert (np.asarray(seen(stored(levels, exif=turned)))[:, :, 0] // 40).tolist() == wanted


def test_the_smallest_picture_is_one() -> None:
    assert seen(stored(Image.new("LA", (1, 1), (0, 0)))).getpixel((0, 0)) == WHITE


def test_signed_levels_are_refused() -> None:
    with pytest.raises(BadRow, match="whose range is not known"):
        seen(tiff(halves(0, 1000, "<i2").tobytes(), 16, numbers=2))


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
