"""What rows can be for embedding models and rerankers, and which losses of sentence-transformers take them.

Which loss fits which rows is sentence-transformers' own table (its "Loss Overview"); the names are its classes'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EMBEDDING, RERANKER = "embedding", "reranker"

ALIASES: Mapping[str, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "question", "sentence1", "sentence_1", "sentence_A", "text1", "premise"),
    "positive": (
        "positive",
        "pos",
        "document",
        "passage",
        "answer",
        "response",
        "sentence2",
        "sentence_2",
        "sentence_B",
        "text2",
        "hypothesis",
    ),
    "negative": ("negative", "negatives", "neg", "hard_negative", "hard_negatives"),
    "score": ("score", "similarity", "similarity_score"),
    "label": ("label", "labels", "relevance"),
}
"""forge's names of columns, and all the names that each goes by."""

NUMBERED = re.compile(r"(?:negative|neg)_?(\d+)")
"""Further negatives: ``negative_1``, ``negative_2``."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss of sentence-transformers.

    Attributes:
        name: The class.
        kinds: The kinds of rows that it takes, by :data:`KINDS`.
        takes: Keys of ``[train]`` that are arguments of it.
        mixes: Whether it takes the other rows of a batch for negatives, so that none may be there twice.
        single: Whether a row may have no more than one negative.
    """

    name: str
    kinds: frozenset[str]
    takes: Mapping[str, str]
    mixes: bool = False
    single: bool = False


KINDS: Mapping[str, str] = {
    "pairs": "anchor and positive",
    "triplets": "anchor, positive and one or more negatives",
    "scored": "two texts and a score",
    "labelled": "two texts and a label that is 0 or 1",
}
"""Kinds of rows, for people."""

_PAIRS = frozenset({"pairs", "triplets"})
_CACHED = {"scale": "scale", "mini_batch_size": "mini_batch_size"}

LOSSES: Mapping[str, Mapping[str, Loss]] = {
    EMBEDDING: {
        loss.name: loss
        for loss in (
            Loss("MultipleNegativesRankingLoss", _PAIRS, {"scale": "scale"}, mixes=True),
            Loss("CachedMultipleNegativesRankingLoss", _PAIRS, _CACHED, mixes=True),
            Loss("TripletLoss", frozenset({"triplets"}), {"margin": "triplet_margin"}, single=True),
            Loss("CoSENTLoss", frozenset({"scored", "labelled"}), {"scale": "scale"}),
            Loss("AnglELoss", frozenset({"scored", "labelled"}), {"scale": "scale"}),
            Loss("CosineSimilarityLoss", frozenset({"scored", "labelled"}), {}),
            Loss("ContrastiveLoss", frozenset({"labelled"}), {"margin": "margin"}),
            Loss("OnlineContrastiveLoss", frozenset({"labelled"}), {"margin": "margin"}),
        )
    },
    RERANKER: {
        loss.name: loss
        for loss in (
            Loss("BinaryCrossEntropyLoss", frozenset({"labelled", "scored"}), {}),
            Loss("MSELoss", frozenset({"labelled", "scored"}), {}),
            Loss("MultipleNegativesRankingLoss", _PAIRS, {"scale": "scale"}, mixes=True),
            Loss("CachedMultipleNegativesRankingLoss", _PAIRS, _CACHED, mixes=True),
        )
    },
}
"""The losses of each method, by name."""

USUAL: Mapping[str, Mapping[str, str]] = {
    EMBEDDING: {
        "pairs": "MultipleNegativesRankingLoss",
        "triplets": "MultipleNegativesRankingLoss",
        "scored": "CoSENTLoss",
        "labelled": "ContrastiveLoss",
    },
    RERANKER: {
        "pairs": "MultipleNegativesRankingLoss",
        "triplets": "MultipleNegativesRankingLoss",
        "scored": "BinaryCrossEntropyLoss",
        "labelled": "BinaryCrossEntropyLoss",
    },
}
"""The loss that forge takes for a kind of rows where the job names none."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of a job are.

    Attributes:
        kind: One of :data:`KINDS`.
        negatives: The most negatives of a row.
    """

    kind: str
    negatives: int = 0

    def __str__(self) -> str:
        return KINDS[self.kind]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of texts, in the order in which losses take them."""
        return ("anchor", "positive", *(f"negative_{number}" for number in range(1, self.negatives + 1)))

    @property
    def rated(self) -> bool:
        """Whether a row has a number beside its texts."""
        return self.kind in {"scored", "labelled"}


@dataclass(frozen=True, slots=True)
class Texts:
    """A row: two texts, with negatives or a number.

    Attributes:
        anchor: What is asked, or the first of two texts.
        positive: What answers it, or the second.
        negatives: Texts that do not answer it.
        rating: How alike the two are, or whether they are.
    """

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    rating: float | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """All texts."""
        return (self.anchor, self.positive, *self.negatives)


def misfit(loss: Loss, shape: Shape) -> str | None:
    """Return why a loss does not take rows, or None.

    >>> misfit(LOSSES["embedding"]["CoSENTLoss"], Shape("pairs"))
    'CoSENTLoss takes two texts and a score, or two texts and a label that is 0 or 1'
    """
    if shape.kind not in loss.kinds:
        return f"{loss.name} takes {', or '.join(said for kind, said in KINDS.items() if kind in loss.kinds)}"
    if loss.single and shape.negatives > 1:
        return f"{loss.name} takes one negative, and rows have up to {shape.negatives}"
    return None


def fitting(method: str, shape: Shape) -> list[str]:
    """Return the losses that take rows of a shape.

    >>> fitting("reranker", Shape("scored"))
    ['BinaryCrossEntropyLoss', 'MSELoss']
    """
    return [name for name, loss in LOSSES[method].items() if misfit(loss, shape) is None]


def kind_of(ratings: Sequence[float], *, label: bool) -> str:
    """Return the kind of rated rows: labels are 0 and 1, and scores anything.

    >>> kind_of([0, 1], label=True), kind_of([0.5, 1], label=True), kind_of([1, 0], label=False)
    ('labelled', 'scored', 'scored')
    """
    return "labelled" if label and all(rating in (0, 1) for rating in ratings) else "scored"


def texts_of(value: Any) -> list[str] | None:
    """Return a cell of one text or a list of texts as a list; None if it is neither."""
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else None
