"""Rows of the format ``tokens``: ids and what of them is in the loss, checked and otherwise left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.conversion.cells import parsed
from forge_huggingface.rows import BadRow, Ids

if TYPE_CHECKING:
    from forge_huggingface.data.conversion.columns import Columns

LOSS_MASK = ("loss_mask", "completion_mask", "assistant_masks", "assistant_mask")
"""Columns that say of each token whether it is in the loss, where the job names none."""


def ids_of(raw: Mapping[str, Any], columns: Columns) -> Ids:
    """Return a row's tokens and labels.

    Args:
        raw: The row of the source.
        columns: The source's columns.

    Raises:
        BadRow: They are no tokens, or the columns contradict each other.
    """
    key, value = columns.need(raw, "input_ids")
    ids = _numbers(value, key)

    def beside(name: str) -> tuple[int, ...] | None:
        column = columns.find(raw, name)
        if column is None:
            return None
        found = _numbers(raw[column], column)
        if len(found) != len(ids):
            raise BadRow(f"has {len(found)} numbers in {column!r} and {len(ids)} tokens", "there is one for each token")
        return found

    attention, labels, mask = (beside(name) for name in ("attention_mask", "labels", "loss_mask"))
    which = columns.called(raw, "loss_mask")
    if attention is not None and set(attention) != {1}:
        raise BadRow(
            "has an attention mask that is not 1 everywhere",
            "every token of a row is seen; what is not to be seen is padding",
            "write rows without padding",
        )
    if labels is not None:
        for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
            if label not in (token, -100):
                raise BadRow(
                    f"has the label {label} at token {at}, which is {token}",
                    "a label is the token itself, or -100; the model shifts them, so they are not shifted in the row",
                )
    if mask is not None:
        if not set(mask) <= {0, 1}:
            raise BadRow(f"has a mask in {which!r} with other numbers than 0 and 1")
        masked = tuple(token if kept else -100 for token, kept in zip(ids, mask, strict=True))
        if labels is not None and labels != masked:
            raise BadRow(
                f"has labels and {which!r}, which disagree about what is in the loss", None, "keep one of them"
            )
        labels = masked
    return Ids(ids, ids if labels is None else labels)


def _numbers(value: Any, column: str) -> tuple[int, ...]:
    value = parsed(value, f"numbers in {column!r}")
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow(f"has no list of numbers in {column!r}", f"it is a {type(value).__name__}")
    for at, number in enumerate(value):
        if type(number) is not int:
            raise BadRow(f"has no list of whole numbers in {column!r}", f"number {at} is {number!r}")
    return tuple(value)
