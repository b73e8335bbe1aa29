"""Ask a trained model about held-out pictures, and count the answers that are exactly right.

    python examples/vision_digits/score.py [RUN_OR_MODEL] [--data FILE] [--count N] [--json]

Takes a run folder of forge or a whole model; without one, the newest run under ``runs/<this example>/``. Prints the
share of exact answers before training (the model that the run began with) and after it.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def newest_run(name: str) -> Path:
    """Return the newest finished run of an example."""
    runs = sorted(path.parent for path in Path("runs", name).glob("*/trained.json"))
    if not runs:
        raise SystemExit(f"there is no finished run under runs/{name}; `forge run` it first, or name one")
    return runs[-1]


def load(folder: Path) -> tuple[Any, Any]:
    """Return model and processor: of a whole model, or of a base with an adapter over it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        return PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), folder), processor
    return AutoModelForImageTextToText.from_pretrained(folder), processor


def answers(model: Any, processor: Any, rows: list[dict[str, Any]], folder: Path, batch: int = 64) -> list[str]:
    """Return the model's greedy answers."""
    import torch
    from PIL import Image

    model.eval()
    found: list[str] = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        prompts = [processor.apply_chat_template([row["messages"][0]], add_generation_prompt=True) for row in part]
        images = [[Image.open(folder / name).convert("RGB") for name in row["images"]] for row in part]
        inputs = processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        found += processor.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in found]


def score(folder: Path, rows: list[dict[str, Any]], data: Path) -> float:
    """Return the share of answers that are exactly right."""
    model, processor = load(folder)
    said = answers(model, processor, rows, data)
    return sum(text == row["messages"][1]["content"] for text, row in zip(said, rows, strict=True)) / len(rows)


def main(here: Path = HERE) -> None:
    """Print the shares."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, default=here / "data" / "eval.jsonl")
    parser.add_argument("--count", type=int)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    subject = asked.subject or newest_run(here.name)
    if (subject / "trained.json").is_file():
        subject = subject / json.loads((subject / "trained.json").read_text(encoding="utf-8"))["weights"]
    rows = [json.loads(line) for line in asked.data.read_text(encoding="utf-8").splitlines()][: asked.count]
    shares = {
        "before": score(here / "model", rows, asked.data.parent),
        "after": score(subject, rows, asked.data.parent),
    }
    if asked.json:
        print(json.dumps({"rows": len(rows), **shares}))
    else:
        print(
            f"{len(rows)} held-out pictures, exactly right: {shares['before']:.1%} before, {shares['after']:.1%} after"
        )


if __name__ == "__main__":
    main()
