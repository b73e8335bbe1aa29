"""Files of images that are damaged, or larger than they look: a bad row that names the image, and nothing else."""

from __future__ import annotations

import io
import random
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from forge.errors import DataError
from forge_huggingface.rows import BadRow
from forge_huggingface.vision import pixels
from forge_huggingface.vision.pixels import FORMATS, decode
from support.damage import damage_bytes
from support.looking import Collated, rewrite, row

if TYPE_CHECKING:
    from pathlib import Path

    from support.looking import VisionProject


def files() -> list[tuple[str, bytes]]:
    """Return a small picture in every form that is read and that Pillow writes."""
    Image.init()
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: list[dict[str, Any]] = [{}, {"exif": exif}, {"compression": "tiff_lzw"}, {"lossless": True}]
    made = []
    for mode in ("RGB", "L", "RGBA", "P", "CMYK", "1"):
        picture = Image.effect_noise((33, 21), 50).convert("RGB").convert(mode)
        for name in sorted(set(FORMATS) & set(Image.SAVE)):
            for form in forms:
                buffer = io.BytesIO()
                try:
                    picture.save(buffer, name, **form)
                except (OSError, ValueError):  # a format without this mode
                    continue
                made.append((name, buffer.getvalue()))
    return made


def test_whatever_happens_to_a_picture_makes_a_bad_row(tmp_path: Path) -> None:
    made, path = files(), tmp_path / "picture"
    assert {name for name, _ in made} >= {"PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"}
    bad = 0
    for seed in range(400):
        rng = random.Random(seed)
        path.write_bytes(made[seed % len(made)][1])
        done = damage_bytes(rng, path) if seed % 4 else _flip(rng, path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                decode(path.read_bytes())
        except BadRow:
            bad += 1
        except Exception as error:
            raise AssertionError(f"{made[seed % len(made)][0]} {seed}: {done}") from error
    assert bad > 200


def _flip(rng: random.Random, path: Path) -> str:
    raw = bytearray(path.read_bytes())
    at = rng.randrange(min(len(raw), 100))
    raw[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", bytes([rng.randrange(256)])])
    path.write_bytes(raw)
    return f"header at {at}"


def written(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_line_of_pixels_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(BadRow, match=r"is too narrow: it is 9000 by 20, and one side may be 200 times"):
        decode(written(9000, 20))
    assert decode(written(4000, 20)).size == (4000, 20)


def test_the_pictures_of_a_row_have_a_bound_together(project: VisionProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        (project.folder / f"{name}.png").write_bytes(written(100, 100))
    said = [{"role": "user", "content": "Which colours?"}, {"role": "assistant", "content": "It is red."}]
    names = ["one.png", "two.png", "three.png"]
    rewrite(project, [{"images": names[:count], "messages": said} for count in (2, 3)])
    Collated(project)
    monkeypatch.setattr(pixels, "ROW_PIXELS", 25_000)
    monkeypatch.setattr("forge_huggingface.vision.images.ROW_PIXELS", 25_000)
    with pytest.raises(DataError, match=r"rows\.jsonl:2 .* image 3 \(three\.png\) is too much: .* 5000 are left"):
        Collated(project)


def test_a_file_is_not_read_beyond_its_bound(project: VisionProject, monkeypatch: pytest.MonkeyPatch) -> None:
    with (project.folder / "large.png").open("wb") as file:
        file.truncate(2**40)  # nothing but a hole
    rewrite(project, [row("large.png")])
    with pytest.raises(DataError, match=r"image 1 \(large\.png\) is too large: more than 64 MiB"):
        Collated(project)
    monkeypatch.setattr(pixels, "LARGEST", 10)
    with pytest.raises(BadRow, match="is too large"):
        decode(written(4, 4))


@pytest.mark.parametrize("name", ["x" * 300, "y" * 4000, "~nobody-of-that-name/x.png", "a\0b", "x" * 300 + "/y.png"])
def test_a_name_that_no_file_can_have_is_told(project: VisionProject, name: str) -> None:
    rewrite(project, [row(name)])
    with pytest.raises(DataError, match=r"rows\.jsonl:1 (has an image that cannot be used: image 1|has a NUL)"):
        Collated(project)
