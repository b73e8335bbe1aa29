"""Make a batch of rows.

Labels are finished before a row comes here, so padding can only ever write -100, even where a model's pad token is its
end token. Packed rows are laid end to end as one sequence whose positions start again at 0 for each row: without an
attention mask, transformers builds from that a mask in which no row sees another (for sdpa and eager), and flash
attention gets the boundaries themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class TokenCollator:
    """Turns rows of tokens into tensors. It is plain data, so that loader processes can be started with it.

    Attributes:
        pad: The id that fills short rows. The attention mask hides it, whatever it is.
        multiple: Round the length of a padded batch up to a multiple of this.
        boundaries: Add the boundaries of packed rows in the form that flash attention takes.
        lengths: Add the lengths of packed rows: Unsloth's attention goes by them alone, and a row must see no other.
    """

    pad: int
    multiple: int | None = None
    boundaries: bool = False
    lengths: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch; rows with ``seq_lengths`` are laid end to end, others padded at the right."""
        return self._flat(rows) if rows[0].get("seq_lengths") is not None else self._padded(rows)

    def _padded(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        length = max(len(row["input_ids"]) for row in rows)
        if self.multiple:
            length = -(-length // self.multiple) * self.multiple
        batch = {
            "input_ids": torch.full((len(rows), length), self.pad, dtype=torch.long),
            "labels": torch.full((len(rows), length), -100, dtype=torch.long),
            "attention_mask": torch.zeros((len(rows), length), dtype=torch.long),
        }
        for index, row in enumerate(rows):
            count = len(row["input_ids"])
            batch["input_ids"][index, :count] = torch.as_tensor(row["input_ids"])
            batch["labels"][index, :count] = torch.as_tensor(row["labels"])
            batch["attention_mask"][index, :count] = 1
        return batch

    def _flat(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        lengths = [int(length) for row in rows for length in row["seq_lengths"]]
        labels = torch.cat([torch.as_tensor(row["labels"], dtype=torch.long) for row in rows])
        starts = torch.tensor([0, *lengths]).cumsum(0)
        # A row's first token would be predicted from the last one of the row before it.
        labels[starts[:-1]] = -100
        batch: dict[str, Any] = {
            "input_ids": torch.cat([torch.as_tensor(row["input_ids"], dtype=torch.long) for row in rows])[None],
            "labels": labels[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        }
        if self.boundaries:
            batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = starts.to(torch.int32)
            batch["max_length_q"] = batch["max_length_k"] = max(lengths)
        if self.lengths:
            batch["packed_seq_lengths"] = torch.tensor(lengths, dtype=torch.int32)
        return batch
