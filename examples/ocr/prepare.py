"""Make ``data/``: pictures of lines of text, drawn with Pillow's own font, and the text that stands in each.

    python examples/ocr/prepare.py [--count N] [--force]

Receipts of invented shops, in places and sizes that change. They show the form of rows for reading text; for a real
task put scans of your own beside a file of the same form. Needs ``pip install pillow``.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOODS = ("Bread", "Milk", "Apples", "Coffee", "Rice", "Cheese", "Soap", "Tea", "Honey", "Paper")
QUESTION = "Read the receipt. Write each line as it stands."


def receipt(rng: random.Random) -> tuple[Any, str]:
    """Return a picture of a receipt and its text."""
    from PIL import Image, ImageDraw, ImageFont

    prices = [(rng.choice(GOODS), rng.randint(50, 2000)) for _ in range(rng.randint(2, 5))]
    lines = [f"{name} {cents / 100:.2f}" for name, cents in prices]
    lines.append(f"Total {sum(cents for _, cents in prices) / 100:.2f}")
    image = Image.new("RGB", (224, 224), "white")
    draw, size = ImageDraw.Draw(image), rng.randint(14, 20)
    font, at = ImageFont.load_default(size=size), rng.randint(4, 30)
    for number, line in enumerate(lines):
        draw.text((at, 10 + number * (size + 8)), line, fill="black", font=font)
    return image.rotate(rng.uniform(-3, 3), fillcolor="white"), "\n".join(lines)


def make_data(folder: Path, count: int, seed: int = 0) -> None:
    """Write pictures, and ``train.jsonl`` and ``eval.jsonl``; one row in ten is held out."""
    (folder / "images").mkdir(parents=True)
    rng, parts = random.Random(seed), {"train": [], "eval": []}
    for index in range(count):
        image, text = receipt(rng)
        name = f"images/{index:05d}.png"
        image.save(folder / name)
        messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        parts["eval" if index % 10 == 9 else "train"].append({"image": name, "messages": messages})
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"data/: {count} receipts")


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
