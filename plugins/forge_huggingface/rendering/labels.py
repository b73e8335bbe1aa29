"""Which tokens of a row are in the loss: the one place where labels are made of a row's text.

Where the loss begins is decided on tokens if the prompt's tokens begin the row's, as TRL does it, and on character
offsets if not. A row whose loss would not include an end token gets one: a model that never sees it never stops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from forge.api import DataError
from forge_huggingface.rendering.spans import inside, starts_at
from forge_huggingface.rows import BadRow, Ids, LongRow, Rendered, Span, parting

if TYPE_CHECKING:
    from collections.abc import Sequence


OnLongRow = Literal["auto", "split", "truncate", "drop", "error"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A row as text, and what of it is in the loss: what follows ``prompt``, or ``spans`` of it, or all."""

    text: str
    plain: bool = False
    prompt: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    open_end: bool = True  # the last message is an answer, so that the row's end belongs to it
    divisible: bool = False  # a text in which nothing is asked and answered: it may become several rows
    notes: tuple[str, ...] = ()


class Labels:
    """Puts labels on rows of tokens.

    Args:
        tokenizer: The tokenizer; it has an end token.
        stops: Token ids that end an answer.
        before: What the tokenizer puts before plain text.
        max_seq_length: The most tokens of a row.
        on_long_row: What to do with a longer one.

    Attributes:
        cuts: Whether a longer row is cut.
        splits: Whether a longer text becomes several rows.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: frozenset[int],
        before: list[int],
        max_seq_length: int,
        on_long_row: OnLongRow,
    ) -> None:
        self.tokenizer, self.stops, self.before = tokenizer, stops, before
        self.eos: int = tokenizer.eos_token_id
        self.max_seq_length = max_seq_length
        self.cuts, self.splits = on_long_row in ("auto", "truncate"), on_long_row in ("auto", "split")
        self._white: dict[int, bool] = {}

    def put(
        self, piece: Piece, ids: list[int], encoding: Any, prompt: list[int] | None, images: Sequence[Span] = ()
    ) -> Rendered | BadRow:
        """Return a row with its labels, -100 where there is no loss; or why it cannot be used.

        Args:
            piece: The row as text.
            ids: Its tokens, without special ones.
            encoding: The tokenizer's encoding of it, which knows character offsets; None of a slow tokenizer.
            prompt: The tokens of its prompt, if it has one.
            images: Where its images are, in tokens: these are never in the loss.

        Raises:
            DataError: The tokenizer cannot tell where answers are.
        """
        count = len(ids)
        if self.stops.issuperset(ids):
            return BadRow("is empty once it is rendered", "the tokenizer makes no tokens of its text")
        diverged = False
        if prompt is not None and piece.prompt is not None:
            start = len(prompt)
            if ids[:start] != prompt:
                diverged = not piece.text.startswith(piece.prompt)
                if diverged or encoding is None:
                    start = parting(prompt, ids)
                else:
                    start = starts_at(encoding.offsets, len(piece.prompt))
            runs = [(start, count)]
        elif piece.spans is not None:
            if encoding is None:
                raise DataError(
                    "the answers cannot be found in the rows",
                    "this tokenizer knows no character offsets",
                    'set train_on = "completion", or use a fast tokenizer',
                )
            runs = inside(encoding.offsets, piece.spans)
        else:
            runs = [(0, count)]
        # An end token directly behind an answer is part of what must be learned, whether the template marks it or not.
        runs = [(start, end + 1 if end < count and ids[end] in self.stops else end) for start, end in runs]
        eos, ids = "there", list(ids)
        if piece.open_end and runs and not self._ends(ids, runs[-1]):
            if runs[-1][1] < count and self._ends(ids, (runs[-1][0], count)):
                runs[-1] = (runs[-1][0], count)
            else:
                ids.append(self.eos)
                runs[-1] = (runs[-1][0], count + 1)
                eos = "appended"
        elif runs and not piece.open_end and not self._ends(ids, runs[-1]):
            eos = "missing"
        labels = [-100] * len(ids)
        for start, end in runs:
            labels[start:end] = ids[start:end]
        for start, end in images:
            labels[start:end] = [-100] * (end - start)
        if piece.plain and self.before and ids[: len(self.before)] != self.before:
            ids = self.before + ids
            # TRL puts the BOS of a plain text into its labels. It is never predicted (nothing comes before it).
            whole = piece.prompt is None and piece.spans is None
            labels = (self.before if whole else [-100] * len(self.before)) + labels
        if piece.divisible and self.splits and len(ids) > self.max_seq_length:
            return self._split(ids, labels, eos)
        needed = max((end for _, end in images), default=0)
        return self._fit(ids, labels, eos, diverged, needed, piece.notes)

    def take(self, row: Ids) -> Rendered | BadRow:
        """Return a row whose tokens and labels are finished; or why it cannot be used."""
        ids, labels = list(row.input_ids), list(row.labels)
        eos = "there" if self._ends(ids, (0, len(ids))) else ""  # nobody says that a row of tokens has an end
        if row.whole and self.splits and len(ids) > self.max_seq_length:
            return self._split(ids, labels, eos)
        return self._fit(ids, labels, eos, diverged=False)

    def _split(self, ids: list[int], labels: list[int], eos: str) -> Rendered:
        """Return the first of the pieces that a long text becomes, with those that follow it."""
        starts = list(range(0, len(ids), self.max_seq_length))
        if len(ids) - starts[-1] == 1:  # a token alone is never predicted
            starts[-1] -= 1
        pieces = [Rendered(ids[at:end], labels[at:end], end - at, "") for at, end in pairwise([*starts, len(ids)])]
        pieces[-1] = replace(pieces[-1], eos=eos)
        return replace(pieces[0], rest=tuple(pieces[1:]))

    def _fit(
        self,
        ids: list[int],
        labels: list[int],
        eos: str,
        diverged: bool,
        needed: int = 0,
        notes: tuple[str, ...] = (),
    ) -> Rendered | BadRow:
        limit, length = self.max_seq_length, len(ids)
        if length > limit:
            if not self.cuts:
                return LongRow(
                    f"has {length} tokens",
                    f"max_seq_length is {limit}",
                    'raise it, shorten the row, or set on_long_row = "truncate" or "drop"',
                )
            if needed > limit:  # an image that is cut is no image
                return LongRow(
                    f"has {length} tokens, and its last image ends at {needed}",
                    f"max_seq_length is {limit}",
                    'raise it, take smaller images, or set on_long_row = "drop"',
                )
            if any(label != -100 for label in labels[limit:]):
                eos = "cut"
            ids, labels = ids[:limit], labels[:limit]
        # The first token has nothing before it: it is never predicted, whatever its label says.
        if all(label == -100 for label in labels[1:]):
            why = f"its answer begins after the first {limit} tokens" if length > limit else None
            return BadRow("has nothing to train on", why, "raise max_seq_length or shorten the prompt" if why else None)
        return Rendered(ids, labels, length, eos, diverged, notes=notes)

    def _ends(self, ids: list[int], run: tuple[int, int]) -> bool:
        """Tell whether a run of tokens ends with an end token, white space behind it apart."""
        start, end = run
        while end > start:
            end -= 1
            if ids[end] in self.stops:
                return True
            if not self._is_white(ids[end]):
                return False
        return False

    def _is_white(self, token: int) -> bool:
        if token not in self._white:
            self._white[token] = not self.tokenizer.decode([token]).strip()
        return self._white[token]
