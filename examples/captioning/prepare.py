"""Make ``data/``: pictures of shapes and a caption of each, as Parquet with the pictures inside.

    python examples/captioning/prepare.py [--count N] [--force]

Coloured circles and squares, and a sentence that says what is where. They show how pictures travel within one file, as
data sets on the hub have them: a column ``image`` of ``{"bytes", "path"}``. Needs ``pip install pillow pyarrow``.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COLOURS = ("red", "green", "blue", "orange", "purple", "black")
PLACES = {"upper left": (10, 10), "upper right": (120, 10), "lower left": (10, 120), "lower right": (120, 120)}
QUESTION = "Describe the picture in one sentence."


def scene(rng: random.Random) -> tuple[bytes, str]:
    """Return a picture as PNG and its caption."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (224, 224), "white")
    draw, said = ImageDraw.Draw(image), []
    for place in rng.sample(sorted(PLACES), rng.randint(1, 3)):
        colour, shape = rng.choice(COLOURS), rng.choice(("circle", "square"))
        x, y = PLACES[place]
        box = (x, y, x + 90, y + 90)
        if shape == "circle":
            draw.ellipse(box, fill=colour)
        else:
            draw.rectangle(box, fill=colour)
        said.append(f"a {colour} {shape} at the {place}")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    sentence = ", ".join(said[:-1]) + (" and " if said[1:] else "") + said[-1]
    return buffer.getvalue(), f"There is {sentence}."


def make_data(folder: Path, count: int, seed: int = 0) -> None:
    """Write ``train.parquet`` and ``eval.parquet``; one row in ten is held out."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    rng = random.Random(seed)
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "eval": []}
    for index in range(count):
        data, caption = scene(rng)
        row = {"image": {"bytes": data, "path": f"{index:05d}.png"}, "question": QUESTION, "answer": caption}
        parts["eval" if index % 10 == 9 else "train"].append(row)
    for part, rows in parts.items():
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{part}.parquet")
    print(f"data/: {count} pictures")


def main() -> None:
    """Make the rows, unless they are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--force", action="store_true", help="make them again")
    asked = parser.parse_args()
    if asked.force:
        shutil.rmtree(HERE / "data", ignore_errors=True)
    if not (HERE / "data").is_dir():
        make_data(HERE / "data", asked.count)


if __name__ == "__main__":
    main()
