"""Make a batch of rows.

Labels are finished before a row comes here, so padding can only ever write -100, even where a model's pad token is its
end token. Rows that lie end to end are one sequence whose positions start again at 0 for each row: without an attention
mask, transformers builds from that a mask in which no row sees another (for sdpa and eager), and attention that goes by
boundaries gets these. What is learned is the same as of padded rows, to the rounding of sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


COUNT = "tokens"
"""Under this name a batch says how many tokens of rows are in it, whatever else fills it up."""

WORTH = 16
"""Rows are laid end to end where padding would be more than one in so many cells: on rows of equal length, attention by
boundaries is slower than without."""

GRAIN = 64
"""Lengths are rounded up to multiples of this at least."""

LENGTHS = 32
"""How many lengths there are between a power of two and the next, once they are rounded."""


def rounded_up(length: int) -> int:
    """Return the next of few lengths, at most a 32nd above: what is made or chosen for a shape is soon there for all.

    >>> [rounded_up(length) for length in (1, 64, 65, 2048, 8193)]
    [64, 64, 128, 2048, 8448]
    """
    step = max(GRAIN, 2 ** (length.bit_length() - 1) // LENGTHS)
    return int(-(-length // step) * step)


@dataclass(frozen=True, slots=True)
class TokenCollator:
    """Turns rows of tokens into tensors. It is plain data, so that loader processes can be started with it.

    Attributes:
        pad: The id that fills short rows. The attention mask hides it, whatever it is.
        flat: Lay rows end to end, where padding would be a good share of the batch.
        rounded: Round lengths up to one of few.
        boundaries: Add the boundaries of rows end to end, in the form that flash attention takes.
        mask: The shape of an attention mask that says that there are boundaries; None for no mask beside them.
        lengths: Add the lengths of rows end to end: Unsloth's attention goes by them alone.
        counted: Say how many tokens there are, for a trainer that takes the number out again.
    """

    pad: int
    flat: bool = False
    rounded: bool = False
    boundaries: bool = False
    mask: tuple[int, ...] | None = None
    lengths: bool = False
    counted: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch: packs, and rows that would be padded a lot, end to end, others padded at the right."""
        lengths = [len(row["input_ids"]) for row in rows]
        tokens, cells = sum(lengths), max(lengths) * len(rows)
        if rows[0].get("seq_lengths") is not None:
            batch = self._flat(rows, [int(length) for row in rows for length in row["seq_lengths"]])
        elif self.flat and WORTH * (cells - tokens) > cells:
            batch = self._flat(rows, lengths)
        else:
            batch = self._padded(rows)
        return {**batch, COUNT: tokens} if self.counted else batch

    def _padded(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import numpy as np
        import torch

        length = max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), rounded_up(length) if self.rounded else length)
        ids: Any = np.full(shape, self.pad, dtype=np.int64)
        labels: Any = np.full(shape, -100, dtype=np.int64)
        mask: Any = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            count = len(row["input_ids"])
            ids[index, :count], labels[index, :count], mask[index, :count] = row["input_ids"], row["labels"], 1
        batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def _flat(self, rows: Sequence[Mapping[str, Any]], lengths: list[int]) -> dict[str, Any]:
        import numpy as np
        import torch

        tokens, longest = sum(lengths), max(lengths)
        total = rounded_up(tokens) if self.rounded else tokens
        # The fill is rows of its own, no longer than the longest: no token is left to which attention writes nothing.
        fill = total - tokens
        lengths = [*lengths, *[longest] * (fill // longest), *([fill % longest] if fill % longest else [])]
        ids: Any = np.full(total, self.pad, dtype=np.int64)
        labels: Any = np.full(total, -100, dtype=np.int64)
        ids[:tokens] = np.concatenate([np.asarray(row["input_ids"], dtype=np.int64) for row in rows])
        labels[:tokens] = np.concatenate([np.asarray(row["labels"], dtype=np.int64) for row in rows])
        starts = np.cumsum([0, *lengths])
        # A row's first token would be predicted from the last one of the row before it.
        labels[starts[:-1]] = -100
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids)[None],
            "labels": torch.from_numpy(labels)[None],
            "position_ids": torch.from_numpy(np.arange(total) - np.repeat(starts[:-1], lengths))[None],
        }
        if self.boundaries:
            batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = torch.from_numpy(starts.astype(np.int32))
            batch["max_length_q"] = batch["max_length_k"] = longest
        if self.mask is not None:
            batch["attention_mask"] = torch.ones(self.mask, dtype=torch.bool)
        if self.lengths:
            batch["packed_seq_lengths"] = torch.tensor(lengths, dtype=torch.int32)
        return batch
