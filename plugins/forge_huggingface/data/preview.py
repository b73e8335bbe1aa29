"""Show rows as the trainer gets them.

What is shown is read from the tokenised rows, not rendered once more: a preview that has its own way of making them
shows what somebody meant, not what is trained on.
"""

from __future__ import annotations

from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.store import origins_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Data
    from forge_huggingface.data.layout import Layout


def preview(data: Data, count: int, layout: Layout) -> list[dict[str, Any]]:
    """Return the first training rows as plain data.

    Each has ``origin`` (or None), ``length``, ``supervised`` (a number), ``input_ids``, ``labels`` and ``segments``:
    runs of tokens with ``text``, ``ids``, ``tokens`` (each token's own text) and ``supervised`` (whether they are in
    the loss). The tokens of an image are a run of their own, whose text is the image's size. A row of several sequences
    has ``parts`` instead, each with a ``name`` and these keys; a prompt also has ``columns``, the names of what goes
    with it to the reward functions.
    """
    rows: Iterable[Any] = islice(data.train, count)
    origins = _origins(data.train, count)
    shown = []
    for index, row in enumerate(rows):
        parts = [{"name": name, **_show(data.processor, row, ids, labels)} for name, ids, labels in layout.parts(row)]
        entry: dict[str, Any] = {"origin": origins[index] if index < len(origins) else None}
        if len(parts) == 1 and parts[0]["name"] is None:
            entry |= {name: value for name, value in parts[0].items() if name != "name"}
        else:
            lengths, supervised = ([part[key] for part in parts] for key in ("length", "supervised"))
            entry |= {"length": max(lengths), "supervised": sum(supervised), "parts": parts}
        if "seq_lengths" in row:
            entry["seq_lengths"] = list(row["seq_lengths"])
        if (columns := layout.companions(row)) is not None:
            entry["columns"] = columns
        shown.append(entry)
    return shown


def _show(processor: Any, row: Any, ids: list[int], labels: list[int]) -> dict[str, Any]:
    tokenizer = getattr(processor, "tokenizer", processor)
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
        segments.append(
            {
                "text": text,
                "supervised": supervised,
                "ids": part,
                "tokens": [tokenizer.decode([token], skip_special_tokens=False) for token in part],
            }
        )
    supervised = len(ids) - labels.count(-100)
    return {"length": len(ids), "supervised": supervised, "input_ids": ids, "labels": labels, "segments": segments}


def _origins(dataset: Any, count: int) -> list[str]:
    files = getattr(dataset, "cache_files", None) or []
    path = origins_path(Path(files[0]["filename"])) if files else None
    if path is None or not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [line.rstrip("\n") for line in islice(file, count)]
