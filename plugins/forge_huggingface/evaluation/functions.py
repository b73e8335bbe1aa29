"""Metrics that are functions: of a file beside the job, or of an installed module.

``"./metrics.py:card"`` names a function that gets, by keyword, those of these that its parameters name, each a list
with one entry for each answer: ``prompts`` (a list of messages, or a text), ``completions`` (what the model said, a
text), ``references`` (the row's own answer, a text or None), and the columns of the row's file. It returns a list of
the same length: numbers, true and false, None (the row does not count), or dicts of such values by name.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError
from forge_huggingface.functions import blame
from forge_huggingface.functions.find import find
from forge_huggingface.functions.reference import reference
from forge_huggingface.functions.signature import Signature, of_function

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Job


GIVEN = frozenset({"prompts", "completions", "references"})
"""Parameters that forge fills; all others are columns of the rows."""


class MetricError(ForgeError):
    """A metric's function failed, or returned what are no values."""


@dataclass(frozen=True, slots=True)
class Function:
    """A metric of the user's.

    Attributes:
        use: What the job calls it.
        name: The name of its value, where it gives a single one.
        function: Called with keywords; sync or async.
        signature: Its parameters.
    """

    use: str
    name: str
    function: Callable[..., Any]
    signature: Signature

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rows must have."""
        return tuple(name for name in self.signature.required if name not in GIVEN)

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[str],
        references: Sequence[str | None],
        rows: Sequence[Mapping[str, Any]],
        origins: Sequence[str],
    ) -> dict[str, list[float | None]]:
        """Return the values by name, one for each completion.

        Raises:
            MetricError: A column is missing, the function raised something, or it returned what are no values.
        """
        for column in self.columns:
            lacking = next((origin for row, origin in zip(rows, origins, strict=True) if column not in row), None)
            if lacking is not None:
                raise self._error(f"it needs the column {column}, which {lacking} has not", "rename its parameter")
        try:
            returned = self._call(prompts, completions, references, rows)
        except ForgeError:
            raise
        except blame.FAULTS as error:

            def alone(index: int) -> None:
                part = slice(index, index + 1)
                self._call(prompts[part], completions[part], references[part], rows[part])

            index = blame.guilty(alone, len(origins), error)
            row = "" if index is None else f" (row {origins[index]})"
            raise self._error(f"{blame.said(self.function, error)}{row}", "mend it") from error
        return self._read(returned, origins)

    def _call(self, *given: Sequence[Any]) -> Any:
        prompts, completions, references, rows = given
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
        keywords = {**columns, "prompts": list(prompts), "completions": list(completions)}
        keywords["references"] = list(references)
        return blame.call(self.function, self.signature.select(keywords), asyncio.run)

    def _read(self, returned: Any, origins: Sequence[str]) -> dict[str, list[float | None]]:
        if hasattr(returned, "tolist"):
            returned = returned.tolist()
        if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
            raise self._error(f"it returned {type(returned).__name__}, and must return a list with one value an answer")
        if len(returned) != len(origins):
            raise self._error(f"it returned {len(returned)} values for {len(origins)} answers")
        entries = [value if isinstance(value, Mapping) else {self.name: value} for value in returned]
        names = dict.fromkeys(str(name) for entry in entries for name in entry)
        return {
            name: [self._number(entry.get(name), origin) for entry, origin in zip(entries, origins, strict=True)]
            for name in names
        }

    def _number(self, value: Any, origin: str) -> float | None:
        if hasattr(value, "item") and not isinstance(value, int | float):
            value = value.item()
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise self._error(f"it returned {value!r} for {origin}", "return a number, true, false or None")
        return float(value)

    def _error(self, why: str, do: str | None = None) -> MetricError:
        return MetricError(f"the metric {self.use} failed", why, do)


def load(job: Job, use: str) -> Function:
    """Return the metric that ``use`` names. Raises :class:`forge.errors.UsageError` if it cannot be had."""
    refers = reference(use)
    function = find(job, refers, "[eval] metrics")
    return Function(use, refers.function.rpartition(".")[2], function, of_function(function))
