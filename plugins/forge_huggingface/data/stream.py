"""Rows rendered while they are trained on, for data that is too large to go through before.

The order depends on the seed alone, so a run that goes on skips what it has seen and gets the same rows after it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.reader import Reader
from forge_huggingface.data.tally import Tally
from forge_huggingface.rows import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import Job
    from forge_huggingface.data.layout import Layout
    from forge_huggingface.rendering.render import Renderer


_BATCH = 64


class Stream:
    """Calling it begins a pass over all sources, mixed by weight.

    Attributes:
        readers: A reader for each source.
        tally: What the latest pass has counted.
    """

    def __init__(self, job: Job, renderer: Renderer, layout: Layout, seed: int) -> None:
        self.job, self.seed = job, seed
        self.readers = [Reader(job, source, renderer, layout) for source in job.data.all_sources()]
        self.tally = Tally(job.data)
        self._bos = renderer.tokenizer.bos_token_id

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Yield rows until every source is at its end."""
        rng = random.Random(self.seed)  # noqa: S311 - a repeatable choice, not a secret
        self.tally = replace(Tally(self.job.data))
        open_ones = [(self._pass(reader, random.Random(rng.random())), reader.source.weight) for reader in self.readers]  # noqa: S311
        left = self.job.data.max_rows
        while open_ones and left != 0:
            at = rng.choices(range(len(open_ones)), [weight for _, weight in open_ones])[0]
            row = next(open_ones[at][0], None)
            if row is None:
                del open_ones[at]
                continue
            left = None if left is None else left - 1
            yield dict(row.columns)
        self.tally.check(done=True)

    def _pass(self, reader: Reader, rng: random.Random) -> Iterator[Record]:
        """Yield a source's rows as often as its weight says."""
        whole, rest = divmod(reader.source.weight, 1)
        for share in [1.0] * int(whole) + ([rest] if rest else []):
            for origin, row in reader.rows(batch=_BATCH):
                if share < 1 and rng.random() >= share:
                    continue
                if self.tally.see(origin, row, self._bos) and isinstance(row, Record):
                    yield row
