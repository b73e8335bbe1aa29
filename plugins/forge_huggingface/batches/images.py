"""Make a batch of rows with images.

Tokens and labels are finished before a row comes here; what is missing are the pixels. The processor makes them, and
with them all that its model wants to know about images, from the row's own text; its tokens must then be the row's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.batches.tokens import COUNT
from forge_huggingface.vision.images import reopen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class ImageCollator:
    """Turns rows of the layout ``images`` into tensors. It can be pickled, for loader processes.

    Attributes:
        processor: The model's processor.
        pad: The id that fills short rows.
        counted: Say how many tokens there are, for a trainer that takes the number out again.
    """

    processor: Any
    pad: int
    counted: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch, padded at the right.

        Raises:
            DataError: The processor makes other tokens than it did before, or an image has changed.
        """
        import torch

        images = [[reopen(picture) for picture in row["pictures"]] for row in rows]
        arguments = {"images": images} if any(images) else {}
        batch = dict(
            self.processor(
                text=[row["text"] for row in rows],
                padding=True,
                padding_side="right",
                add_special_tokens=False,
                return_tensors="pt",
                **arguments,
            )
        )
        shape, width = batch["input_ids"].shape, max(len(row["input_ids"]) for row in rows)
        for name, value in batch.items():
            # What belongs to tokens is cut with them, where a row was; what belongs to images stays.
            if name.endswith(("_ids", "attention_mask")) and value.shape[:2] == shape and not name.startswith("pixel"):
                batch[name] = value[:, :width].clone()
        labels = torch.full((len(rows), width), -100, dtype=torch.long)
        for index, row in enumerate(rows):
            count = len(row["input_ids"])
            if batch["input_ids"][index, :count].tolist() != list(row["input_ids"]):
                raise DataError(
                    "the processor makes other tokens than it did when the rows were made",
                    type(self.processor).__name__,
                    "start a new run",
                )
            labels[index, :count] = torch.as_tensor(row["labels"])
            batch["input_ids"][index, count:] = self.pad
            batch["attention_mask"][index, count:] = 0
        batch["labels"] = labels
        return {**batch, COUNT: sum(len(row["input_ids"]) for row in rows)} if self.counted else batch
