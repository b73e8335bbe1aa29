"""Batches of the layouts beside tokens and images: pairs, rated and ranked rows, and texts for encoder and decoder.

The tensors are those of TRL's own collators (``trl/trainer/dpo_trainer.py``, ``kto_trainer.py``, ``reward_trainer.py``
and ``trl/experimental/utils.py``; a test compares them). Having our own means that a backend that patches trl gets the
same batches, and that nothing is cut once more. All are plain data, so that loader processes can be started with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge_huggingface.batches.images import ImageCollator
    from forge_huggingface.heads.labels import Labels


REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
"""What a reference that was asked before training said of a pair."""


def padded(rows: Sequence[Sequence[int]], value: int) -> Any:
    """Return rows of unequal length as one tensor, filled at the right."""
    import torch

    tensor = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for index, row in enumerate(rows):
        tensor[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return tensor


def sequences(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int) -> dict[str, Any]:
    """Return ``input_ids``, ``attention_mask`` and ``completion_mask`` of prompts with their answers."""
    ids = [[*prompt, *answer] for prompt, answer in rows]
    return {
        "input_ids": padded(ids, pad),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "completion_mask": padded([[0] * len(prompt) + [1] * len(answer) for prompt, answer in rows], 0),
    }


@dataclass(frozen=True, slots=True)
class PairBatches:
    """Batches for dpo: all chosen answers, then all rejected ones."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch, with the reference's log-probabilities if the rows have them."""
        import torch

        sides = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        known = {name: torch.tensor([row[name] for row in rows]) for name in REFERENCE if name in rows[0]}
        return {**sequences(sides, self.pad), **known}


@dataclass(frozen=True, slots=True)
class ImagePairs:
    """Batches for dpo on rows with images."""

    collator: ImageCollator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch; the images are there for both sides. The reference's log-probabilities are as in Pairs."""
        import torch

        sides = [
            {**{name: row[f"{side}_{name}"] for name in ("input_ids", "labels", "text")}, "pictures": row["pictures"]}
            for side in ("chosen", "rejected")
            for row in rows
        ]
        batch = self.collator(sides)
        labels = batch.pop("labels")
        known = {name: torch.tensor([row[name] for row in rows]) for name in REFERENCE if name in rows[0]}
        return {**batch, **known, "completion_mask": (labels != -100).long()}


@dataclass(frozen=True, slots=True)
class Split:
    """Batches for orpo and cpo: the two sides in tensors of their own, the prompt masked in the labels."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        batch: dict[str, Any] = {}
        for side in ("chosen", "rejected"):
            made = sequences([(row["prompt_ids"], row[f"{side}_ids"]) for row in rows], self.pad)
            batch[f"{side}_input_ids"] = made["input_ids"]
            batch[f"{side}_attention_mask"] = made["attention_mask"]
            batch[f"{side}_labels"] = made["input_ids"].masked_fill(made["completion_mask"] == 0, -100)
        return batch


@dataclass(frozen=True, slots=True)
class RatedBatches:
    """Batches for kto.

    Attributes:
        pad: The id that fills short rows.
        limit: The most tokens of a row. A prompt with the answer of another row may be longer, and is cut.
    """

    pad: int
    limit: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch, with other rows' answers and the reference's log-probabilities if the rows have them."""
        import torch

        batch = sequences([(row["prompt_ids"], row["completion_ids"]) for row in rows], self.pad)
        if "KL_completion_ids" in rows[0]:
            pairs = [(row["prompt_ids"], row["KL_completion_ids"]) for row in rows]
            mixed = sequences([(prompt, answer[: self.limit - len(prompt)]) for prompt, answer in pairs], self.pad)
            batch |= {f"KL_{name}": value for name, value in mixed.items()}
        for name in ("ref_logps", "ref_KL_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return {**batch, "label": torch.tensor([row["label"] for row in rows])}


@dataclass(frozen=True, slots=True)
class RankedBatches:
    """Batches for a reward model: all chosen conversations, then all rejected ones."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch, with the margins if every row has one."""
        import torch

        ids = [row[side] for side in ("chosen_ids", "rejected_ids") for row in rows]
        batch = {"input_ids": padded(ids, self.pad), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
        if all(row["margin"] is not None for row in rows):
            batch["margin"] = torch.tensor([row["margin"] for row in rows], dtype=torch.float)
        return batch


@dataclass(frozen=True, slots=True)
class LabelledBatches:
    """Batches for a classifier, as transformers' own collator makes them, padded at the right.

    Attributes:
        pad: The id that fills short rows.
        labels: Makes a row's target; None for texts without a label.
        types: What fills ``token_type_ids``, which say of a token in which of two texts it is.
    """

    pad: int
    labels: Labels | None
    types: int = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        import torch

        ids = [row["input_ids"] for row in rows]
        batch = {"input_ids": padded(ids, self.pad), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
        if any(row["token_types"] for row in rows):
            kinds = [row["token_types"] or [0] * len(row["input_ids"]) for row in rows]
            batch["token_type_ids"] = padded(kinds, self.types)
        if self.labels is None:
            return batch
        found = [self.labels.target(json.loads(row["target"])) for row in rows]
        exact = all(isinstance(target, int) for target in found)
        return {**batch, "labels": torch.tensor(found, dtype=torch.long if exact else torch.float)}


@dataclass(frozen=True, slots=True)
class Seq2SeqBatches:
    """Batches for an encoder-decoder model.

    Attributes:
        pad: The id that fills short texts.
        model: The model, which shifts the labels into what its decoder sees.
    """

    pad: int
    model: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        ids, labels = [row["input_ids"] for row in rows], padded([row["labels"] for row in rows], -100)
        shifted = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        return {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": labels,
            **({"decoder_input_ids": shifted(labels=labels)} if shifted else {}),
        }
