"""Rows rendered while they are trained on, for data that is too large to go through before.

The order depends on the seed alone, so a run that goes on skips what it has seen and gets the same rows after it.
"""

from __future__ import annotations

import logging
import random
from itertools import chain
from typing import TYPE_CHECKING, Any

from forge.api import Warned
from forge.text.units import percent
from forge_huggingface.data.packing import packed
from forge_huggingface.data.reader import Reader
from forge_huggingface.data.tally import Tally
from forge_huggingface.rows import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge.api import Job
    from forge_huggingface.data.layout import Layout
    from forge_huggingface.rendering.render import Renderer


_BATCH = 64
_LOOK = 256  # rows between two looks at what has been cut
_LOG = logging.getLogger(__name__)


class Stream:
    """Calling it begins a pass over all sources, mixed by weight: rows, or packs of them if the job says so.

    Args:
        job: The job.
        renderer: Turns rows into tokens.
        layout: What is made of them.
        seed: Decides in which order sources are drawn from.
        tell: Shows a warning to whoever watches the run; in a loader process, which has no run, it goes to the log.

    Attributes:
        readers: A reader for each source.
        tally: What the latest pass has counted.
    """

    def __init__(
        self, job: Job, renderer: Renderer, layout: Layout, seed: int, tell: Callable[[Warned], None] | None = None
    ) -> None:
        self.job, self.seed, self.tell = job, seed, tell
        self.capacity = renderer.max_seq_length
        self.readers = [Reader(job, source, renderer, layout) for source in job.data.all_sources()]
        self.tally = Tally(job.data)
        self._bos = renderer.tokenizer.bos_token_id
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {**self.__dict__, "tell": None}

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Yield rows, or packs of them, until every source is at its end."""
        return packed(self.rows(), self.capacity) if self.job.data.packing else self.rows()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield rows until every source is at its end."""
        rng = random.Random(self.seed)  # noqa: S311 - a repeatable choice, not a secret
        tally = self.tally = Tally(self.job.data)
        passes = [self._pass(reader, random.Random(rng.random())) for reader in self.readers]  # noqa: S311
        parts = {at: reader.source.share or reader.source.weight for at, reader in enumerate(self.readers)}
        shared = any(reader.source.share for reader in self.readers)
        until, ended, left = self.job.data.stopping_strategy, set[int](), self.job.data.max_rows
        while parts and left != 0:
            at = rng.choices(list(parts), list(parts.values()))[0]
            row = next(passes[at], None)
            if row is None:
                ended.add(at)
                if not shared:
                    del parts[at]
                elif until != "all_exhausted" or len(ended) == len(parts) or not self._again(passes, at, rng):
                    break
                continue
            left = None if left is None else left - 1
            yield from (dict(each.columns) for each in (row, *row.rest))
            if tally.read % _LOOK == 0:
                self._tell_of_cuts(tally)
        tally.check(done=True)
        self._tell_of_cuts(tally)

    def _again(self, passes: list[Iterator[Record]], at: int, rng: random.Random) -> bool:
        """Begin a source anew that is used up before others; return whether it has any row."""
        passes[at] = self._pass(self.readers[at], random.Random(rng.random()))  # noqa: S311 - as above
        first = next(passes[at], None)
        if first is not None:
            passes[at] = chain([first], passes[at])
        return first is not None

    def _tell_of_cuts(self, tally: Tally) -> None:
        """Warn once if the rows lose too many of their tokens; what was seen before training did not."""
        if self._told or not tally.too_much_cut:
            return
        self._told = True
        message = f"{percent(tally.cut_share)} of all tokens of the first {tally.read} streamed rows were cut off"
        do = 'raise [model] max_seq_length, or set on_long_row = "truncate" or "drop"'
        if self.tell is not None:
            self.tell(Warned(message=message, do=do))
        else:
            _LOG.warning("%s; %s", message, do)

    def _pass(self, reader: Reader, rng: random.Random) -> Iterator[Record]:
        """Yield a source's rows as often as its weight says."""
        whole, rest = divmod(reader.source.weight, 1)
        for share in [1.0] * int(whole) + ([rest] if rest else []):
            for origin, row in reader.rows(batch=_BATCH):
                if share < 1 and rng.random() >= share:
                    continue
                if self.tally.see(origin, row, self._bos) and isinstance(row, Record):
                    yield row
