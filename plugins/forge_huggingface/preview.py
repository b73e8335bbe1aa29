"""Show rows as the trainer gets them.

What is shown is read from the tokenised rows, not rendered once more: a preview that has its own way of making them
shows what somebody meant, not what is trained on.
"""

from __future__ import annotations

from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_huggingface.store import origins_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Data


def preview(data: Data, count: int) -> list[dict[str, Any]]:
    """Return the first training rows as plain data.

    Each has ``origin`` (or None), ``length``, ``supervised`` (a number), ``input_ids``, ``labels`` and ``segments``:
    runs of tokens with ``text``, ``ids``, ``tokens`` (each token's own text) and ``supervised`` (whether they are in
    the loss). The tokens of an image are a run of their own, whose text is the image's size.
    """
    rows: Iterable[Any] = islice(data.train, count)
    origins = _origins(data.train, count)
    return [_show(data.processor, row, origins[index] if index < len(origins) else None)
            for index, row in enumerate(rows)]  # fmt: skip


def _show(processor: Any, row: Any, origin: str | None) -> dict[str, Any]:
    tokenizer = getattr(processor, "tokenizer", processor)
    ids, labels = list(row["input_ids"]), list(row["labels"])
    pictures = row.get("pictures") or []
    seen: list[int | None] = [None] * len(ids)
    for number, picture in enumerate(pictures):
        seen[picture["start"] : picture["end"]] = [number] * (picture["end"] - picture["start"])
    segments = []
    for (supervised, image), run in groupby(range(len(ids)), key=lambda index: (labels[index] != -100, seen[index])):
        part = [ids[index] for index in run]
        text = tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if image is not None:  # hundreds of placeholders say nothing that the size does not
            text = f"<image {pictures[image]['width']}\N{MULTIPLICATION SIGN}{pictures[image]['height']}>"
        segments.append({
            "text": text,
            "supervised": supervised,
            "ids": part,
            "tokens": [tokenizer.decode([token], skip_special_tokens=False) for token in part],
        })  # fmt: skip
    shown = {"origin": origin, "length": len(ids), "supervised": len(ids) - labels.count(-100), "input_ids": ids,
             "labels": labels, "segments": segments}  # fmt: skip
    if "seq_lengths" in row:
        shown["seq_lengths"] = list(row["seq_lengths"])
    return shown


def _origins(dataset: Any, count: int) -> list[str]:
    files = getattr(dataset, "cache_files", None) or []
    path = origins_path(Path(files[0]["filename"])) if files else None
    if path is None or not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [line.rstrip("\n") for line in islice(file, count)]
