"""Count what became of the rows.

Every row that is read ends up in one of these numbers, so that nothing is dropped, cut or mended without being said.
The rule for bad rows lives here too: whether one of them ends the run is a question of counting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge.text.units import counted, percent
from forge_huggingface.rows import BadRow, CutAlike, LongRow, Record, UnfetchedRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api import DataTable


SAMPLE = 1000
"""How many rows are looked at before a bad one is reported, so that the report can say how many are bad."""

_FEW = 5
_CUT = 0.1  # the largest share of all tokens that is cut off before on_long_row = "auto" asks


@dataclass(slots=True)
class Tally:
    """Counts over the rows of one split.

    Attributes:
        kept: The rows to train on: of a text that is split, each of its pieces.
        cut_tokens: The tokens that were cut off.
        cut_rows: The tokens that the cut rows had before.
        split: The rows of a file that became several.
        pieces: What they became.
        alike: The first pairs that only a cut makes equal.
        alikes: How many such pairs there are.
        rated: Of answers that were cut, by their tokens, whether the first of them was a good one.
        contrary: The rated rows that only a cut makes equal to one of the other rating.
    """

    data: DataTable
    read: int = 0
    kept: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0
    truncated: int = 0
    cut_tokens: int = 0
    cut_rows: int = 0
    split: int = 0
    pieces: int = 0
    bad: int = 0
    long: int = 0
    doubled_bos: int = 0
    diverged: int = 0
    images: int = 0
    image_tokens: int = 0
    eos: dict[str, int] = field(default_factory=dict)
    alike: list[str] = field(default_factory=list)
    alikes: int = 0
    rated: dict[int, bool] = field(default_factory=dict)
    contrary: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    _first: tuple[str, BadRow] | None = None
    _waits: bool = False  # for images, so that going on to count bad rows may take days

    def see(self, origin: str, result: Record | BadRow, bos: int | None) -> bool:
        """Count a row and return whether it is kept.

        Raises:
            DataError: The job does not allow for this row.
        """
        self.read += 1
        if isinstance(result, Record):
            pieces = (result, *result.rest)
            parts = [part for piece in pieces for part in piece.parts]
            self.kept += len(pieces)
            if result.rest:
                self.split += 1
                self.pieces += len(pieces)
            for piece in pieces:
                self.tokens += piece.tokens
                self.supervised += piece.supervised
                self.longest = max(self.longest, piece.length)
            if any(part.truncated for part in parts):
                self.truncated += 1
                self.cut_rows += sum(part.length for part in parts)
                self.cut_tokens += sum(part.length - len(part.input_ids) for part in parts)
                good = result.columns.get("label")
                if good is not None and self.rated.setdefault(hash(tuple(parts[0].input_ids)), good) != good:
                    self.contrary.append(origin)
            self.diverged += any(part.diverged for part in parts)
            pictures = result.parts[0].pictures
            self.images += len(pictures)
            self.image_tokens += sum(picture["end"] - picture["start"] for picture in pictures)
            for eos in {part.eos for part in parts if part.eos}:
                self.eos[eos] = self.eos.get(eos, 0) + 1
            for note in {note for part in parts for note in part.notes}:
                self.notes[note] = self.notes.get(note, 0) + 1
            self.doubled_bos += bos is not None and result.parts[0].input_ids[:2] == [bos, bos]
            self.check(done=False)
            return True
        if isinstance(result, LongRow) and self.data.on_long_row == "drop":
            self.long += 1
        else:
            self.bad += 1
            self._first = self._first or (origin, result)
            self._waits |= isinstance(result, UnfetchedRow)
            if isinstance(result, CutAlike):
                self.alikes += 1
                self.alike += [origin] if len(self.alike) < _FEW else []
        if len(self.dropped) < _FEW:
            self.dropped.append(f"{origin} {result}")
        self.check(done=False)
        return False

    def check(self, *, done: bool) -> None:
        """Raise for bad rows that the job does not allow for, once enough rows are seen to say how many there are."""
        if self._first is None:
            return
        origin, bad = self._first
        limit = self.data.max_bad_rows
        if self.data.on_bad_row == "error":
            if done or self.read >= SAMPLE or self._waits:
                note = f"{self.bad} of {'all' if done else 'the first'} {self.read} rows are bad"
                raise bad.at(origin, f"{note}, {self._cut_alike()}" if self.alikes else note)
            return
        if self.bad > limit if limit >= 1 else done and self.bad > limit * self.read:
            allowed = f"max_bad_rows is {limit:g}"
            raise DataError(
                f"{self.bad} of {self.read} rows are bad",
                f"{allowed}; the first: {origin} {bad}",
                "mend the rows, or raise max_bad_rows",
            )

    def _cut_alike(self) -> str:
        """Say how many pairs only a cut makes equal, and name the first."""
        return f"{self.alikes} by a cut that makes their answers equal: {_named(self.alike, self.alikes)}"

    @property
    def cut_share(self) -> float:
        """The share of all tokens that was cut off."""
        return self.cut_tokens / (self.tokens + self.cut_tokens) if self.cut_tokens else 0.0

    @property
    def too_much_cut(self) -> bool:
        """Whether more is cut off than the job can have meant, as it does not say what to do with long rows."""
        return self.data.on_long_row == "auto" and self.cut_share > _CUT

    def refuse_cut(self, *, first: bool = False) -> None:
        """Raise for too many tokens that are cut off, unless the job says that rows are to be cut.

        Args:
            first: Whether these are only the first rows.
        """
        if self.too_much_cut:
            rows = f"the first {self.read} training rows" if first else "the training rows"
            raise DataError(
                f"{percent(self.cut_share)} of all tokens of {rows} would be cut off",
                f"{self.truncated} of {self.kept} rows are longer than max_seq_length and lose "
                f"{percent(self.cut_tokens / self.cut_rows)} of their tokens; "
                f"more than {percent(_CUT)} is not cut unasked",
                'raise [model] max_seq_length; or set on_long_row = "truncate" to have it so, '
                'or "drop" to leave such rows out',
            )

    def cuts(self) -> dict[str, Any]:
        """Return the numbers of what was cut and split, if anything was."""
        found: dict[str, Any] = {"truncated": self.truncated}
        if self.cut_tokens:
            found["cut_tokens"] = self.cut_tokens
            found["cut_share"] = round(self.cut_share, 4)
            found["cut_share_of_rows"] = round(self.cut_tokens / self.cut_rows, 4)
        if self.split:
            found |= {"split": self.split, "pieces": self.pieces}
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for the event and the summary."""
        return {
            "read": self.read,
            "rows": self.kept,
            "tokens": self.tokens,
            "supervised": self.supervised,
            "share": round(self.supervised / self.tokens, 4) if self.tokens else 0.0,
            "longest": self.longest,
            **self.cuts(),
            "dropped": self.bad + self.long,
            "dropped_bad": self.bad,
            "dropped_long": self.long,
            "dropped_first": list(self.dropped),
            "eos": dict(self.eos),
            **({"images": self.images, "image_tokens": self.image_tokens} if self.images else {}),
        }

    def warnings(self, name: str) -> list[Mapping[str, Any]]:
        """Return what a person should know before training on these rows."""
        found: list[Mapping[str, Any]] = []

        def warn(message: str, do: str | None = None) -> None:
            found.append({"message": f"{name}: {message}", "do": do})

        if self.alikes:
            do = 'raise [model] max_seq_length, or set on_long_row = "drop"'
            warn(f"{self.bad} rows were dropped as bad, {self._cut_alike()}", do)
        if self.contrary:
            count = len(self.contrary)
            what = f"{counted(count, 'row')} rated otherwise than the same prompt and answer before"
            warn(f"a cut leaves {what}: {_named(self.contrary, count)}", "raise [model] max_seq_length")
        if self.truncated > self.kept / 2:
            warn(f"{self.truncated} of {self.kept} rows are cut at max_seq_length", "raise [model] max_seq_length")
        if 0 < self.supervised < self.tokens / 100:  # prompts alone have none
            warn(f"only {self.supervised} of {self.tokens} tokens are trained on", "see `forge data` and train_on")
        if self.doubled_bos:
            warn(f"{self.doubled_bos} rows begin with two BOS tokens", "remove one from the template or the rows")
        if count := self.eos.get("missing", 0):
            warn(f"{count} rows teach no end of an answer, since another turn follows it")
        if self.diverged:
            warn(
                f"in {self.diverged} rows the chat template writes the prompt otherwise than it asks for an answer",
                "the loss begins where the two part; see `forge data`",
            )
        for note, count in self.notes.items():
            warn(f"in {counted(count, 'row')} {note}")
        return found


def _named(origins: Sequence[str], count: int) -> str:
    """Return the places of the first rows of so many."""
    return ", ".join(origins[:_FEW]) + (", …" if count > _FEW else "")
