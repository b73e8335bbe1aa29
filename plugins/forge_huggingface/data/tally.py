"""Count what became of the rows.

Every row that is read ends up in one of these numbers, so that nothing is dropped, cut or mended without being said.
The rule for bad rows lives here too: whether one of them ends the run is a question of counting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.rows import BadRow, LongRow, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import DataTable


SAMPLE = 1000
"""How many rows are looked at before a bad one is reported, so that the report can say how many are bad."""

_NAMED = 5


@dataclass(slots=True)
class Tally:
    """Counts over the rows of one split."""

    data: DataTable
    read: int = 0
    kept: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0
    truncated: int = 0
    bad: int = 0
    long: int = 0
    doubled_bos: int = 0
    diverged: int = 0
    images: int = 0
    eos: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    _first: tuple[str, BadRow] | None = None

    def see(self, origin: str, result: Record | BadRow, bos: int | None) -> bool:
        """Count a row and return whether it is kept.

        Raises:
            DataError: The job does not allow for this row.
        """
        self.read += 1
        if isinstance(result, Record):
            self.kept += 1
            self.tokens += result.tokens
            self.supervised += result.supervised
            self.longest = max(self.longest, result.length)
            self.truncated += any(part.truncated for part in result.parts)
            self.diverged += any(part.diverged for part in result.parts)
            self.images += len(result.parts[0].pictures)
            for eos in {part.eos for part in result.parts if part.eos}:
                self.eos[eos] = self.eos.get(eos, 0) + 1
            for note in {note for part in result.parts for note in part.notes}:
                self.notes[note] = self.notes.get(note, 0) + 1
            self.doubled_bos += bos is not None and result.parts[0].input_ids[:2] == [bos, bos]
            self.check(done=False)
            return True
        if isinstance(result, LongRow) and self.data.on_long_row == "drop":
            self.long += 1
        else:
            self.bad += 1
            self._first = self._first or (origin, result)
        if len(self.dropped) < _NAMED:
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
            if done or self.read >= SAMPLE:
                raise bad.at(origin, f"{self.bad} of {'all' if done else 'the first'} {self.read} rows are bad")
            return
        if self.bad > limit if limit >= 1 else done and self.bad > limit * self.read:
            allowed = f"max_bad_rows is {limit:g}"
            raise DataError(
                f"{self.bad} of {self.read} rows are bad",
                f"{allowed}; the first: {origin} {bad}",
                "mend the rows, or raise max_bad_rows",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for the event and the summary."""
        return {
            "read": self.read,
            "rows": self.kept,
            "tokens": self.tokens,
            "supervised": self.supervised,
            "share": round(self.supervised / self.tokens, 4) if self.tokens else 0.0,
            "longest": self.longest,
            "truncated": self.truncated,
            "dropped": self.bad + self.long,
            "dropped_bad": self.bad,
            "dropped_long": self.long,
            "dropped_first": list(self.dropped),
            "eos": dict(self.eos),
            **({"images": self.images} if self.images else {}),
        }

    def warnings(self, name: str) -> list[Mapping[str, Any]]:
        """Return what a person should know before training on these rows."""
        found: list[Mapping[str, Any]] = []

        def warn(message: str, do: str | None = None) -> None:
            found.append({"message": f"{name}: {message}", "do": do})

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
            warn(f"in {count} row{'' if count == 1 else 's'} {note}")
        return found
