"""Rows of the format ``tokens``: ids and what of them is in the loss, checked and otherwise left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forge_huggingface.data.cells import parsed, value_of
from forge_huggingface.rows import BadRow, Ids

LOSS_MASK = ("loss_mask", "completion_mask", "assistant_masks", "assistant_mask")
"""Columns that say of each token whether it is in the loss, where the job names none."""


def ids_of(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Ids:
    """Return a row's tokens and labels.

    Args:
        raw: The row of the source.
        columns: forge's name of a column, and the source's.

    Raises:
        BadRow: They are no tokens, or the columns contradict each other.
    """
    key = columns["input_ids"]
    ids = _numbers(value_of(raw, key), key)
    if not ids:
        raise BadRow(f"has no tokens in {key!r}", "the list is empty")

    def beside(name: str, column: str | None = None) -> tuple[int, ...] | None:
        column = column or columns.get(name, name)
        if raw.get(column) is None:
            return None
        found = _numbers(raw[column], column)
        if len(found) != len(ids):
            raise BadRow(f"has {len(found)} numbers in {column!r} and {len(ids)} tokens", "there is one for each token")
        return found

    which = _mask_of(raw, columns)
    attention, labels = beside("attention_mask"), beside("labels")
    mask = beside("loss_mask", which) if which else None
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


def _mask_of(raw: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Return the column of a row's mask: rows of one file may have one or not, as the first of them need not have."""
    named = columns.get("loss_mask")
    there = [name for name in (LOSS_MASK if named in (None, *LOSS_MASK) else (named,)) if raw.get(name) is not None]
    if len(there) > 1:
        raise BadRow(
            f"has two masks, {there[0]!r} and {there[1]!r}",
            "one of them must say what is in the loss",
            'remove one, or combine them into a column of another name: columns = { loss_mask = "…" }',
        )
    return there[0] if there else None


def _numbers(value: Any, column: str) -> tuple[int, ...]:
    value = parsed(value, f"numbers in {column!r}")
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow(f"has no list of numbers in {column!r}", f"it is a {type(value).__name__}")
    for at, number in enumerate(value):
        if type(number) is not int:
            raise BadRow(f"has no list of whole numbers in {column!r}", f"number {at} is {number!r}")
    return tuple(value)
