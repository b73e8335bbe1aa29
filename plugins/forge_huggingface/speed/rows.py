"""How many rows a job has and how long they are, from the first megabytes of its files: what a plan can afford."""

from __future__ import annotations

import glob
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forge.api import Job, Source


LOOKED_AT = 2**22
"""Bytes of a source that are read; where there are more, the rest is taken to be like them."""

BYTES_A_TOKEN = 4.0
"""Of a line of a file of rows, its keys and quotes included. English text has about as many a token."""

LINES = (".jsonl", ".ndjson", ".csv", ".tsv")
"""Suffixes of files whose rows are lines."""


class Uncounted(Exception):  # noqa: N818 - it is no error that a plan cannot count rows
    """Rows that are not counted while planning; its text says why."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a training goes through.

    Attributes:
        steps: The number of steps.
        tokens: Tokens of a step, with what fills the batches up.
        length: Tokens of a row of a batch, filled up.
    """

    steps: int
    tokens: float
    length: float


def extent(job: Job, limit: int | None) -> Extent:
    """Return how many steps a job has, and how many tokens each.

    Args:
        job: The job.
        limit: The longest row in tokens; None if there is no limit.

    Raises:
        Uncounted: The rows or the batches are not known while planning.
    """
    options = job.train.options
    size, together = options.get("per_device_train_batch_size"), options.get("gradient_accumulation_steps")
    whole = options.get("batch_size")  # rows of a step, whatever they are split into
    if isinstance(size, int) and isinstance(together, int):
        whole = size * together
    if not isinstance(whole, int):
        raise Uncounted("the size of the batches is decided when the rows are there")
    size = size if isinstance(size, int) else min(8, whole)
    rows, total, filled = 0.0, 0.0, 0.0
    for source in job.data.sources or [job.data]:
        count, lengths = _looked_at(job, source)
        lengths = [min(length, limit) if limit else length for length in lengths]
        rows += count * source.weight
        total += count * source.weight * sum(lengths) / len(lengths)
        filled += count * source.weight * _filled_up(lengths, size)
    if job.data.packing and limit:
        rows, length = max(1.0, total / limit), float(limit)
    else:
        length = filled / rows
    steps = int(options.get("max_steps") or -1)
    if steps <= 0:
        held_out = job.data.eval_size or 0
        rows -= rows * held_out if held_out < 1 else held_out
        steps = math.ceil(max(1.0, rows) / whole * float(options.get("num_train_epochs") or 1))
    return Extent(steps, whole * length, length)


def _filled_up(lengths: Sequence[float], size: int) -> float:
    """Return the mean length of rows that are filled up to the longest of their batch."""
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return sum(len(batch) * max(batch) for batch in batches) / len(lengths)


def _looked_at(job: Job, source: Source) -> tuple[float, list[float]]:
    """Return how many rows a source has, and the lengths in tokens of its first ones."""
    files = list(_files(job, source))
    budget, rows, lengths = LOOKED_AT, 0.0, list[float]()
    for path in files:
        if path.suffix.lower() not in LINES:
            raise Uncounted(f"rows of {path.name} are not counted while planning, only lines of {', '.join(LINES)}")
        try:
            there = path.stat().st_size
            with path.open("rb") as file:
                text = file.read(budget) if budget else b""
        except OSError as error:
            raise Uncounted(f"{path.name} cannot be read ({error.strerror})") from None
        budget -= len(text)
        if there > len(text):  # the last line is cut
            text = text[: text.rfind(b"\n") + 1] or text
        found = [len(line) for line in text.split(b"\n") if line.strip()]
        if path.suffix.lower() in {".csv", ".tsv"}:
            found = found[1:]
        if found:
            lengths += [count / BYTES_A_TOKEN for count in found]
            rows += len(found) * there / len(text)
        elif lengths:  # beyond what is read: as long as those before
            rows += there / BYTES_A_TOKEN / (sum(lengths) / len(lengths))
    if not lengths:
        raise Uncounted(f"there are no rows in {source.path}")
    return rows, lengths


def _files(job: Job, source: Source) -> Iterator[Path]:
    named = [source.path] if isinstance(source.path, str) else source.path or []
    for name in named:
        try:
            path = job.path(name)
        except UsageError as error:
            raise Uncounted(error.what) from None
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        elif path.is_file():
            yield path
        elif found := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - the pattern may be absolute
            yield from map(Path, found)
        else:
            raise Uncounted(f"the rows of {name} are not on this machine")
