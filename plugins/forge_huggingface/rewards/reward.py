"""A reward that is ready to score: it calls its function and answers for what the function does.

The functions are the user's, and they run between two steps of a training that may have taken hours. So whatever one
of them raises or returns becomes an error that names the function, its table in the job, the completion and the row it
came from, and the line of the user's own file.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError
from forge_huggingface.functions import blame
from forge_huggingface.rewards.score import Score, WrongReturnError, read_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from forge_huggingface.functions.signature import Signature


ORIGIN = "origin"
"""The column that says where a row came from, as in ``rows.jsonl:17``."""

_PER_ROW = "completion_ids"


class RewardError(ForgeError):
    """A reward function failed, or returned what is no reward."""


@dataclass(kw_only=True)
class Reward:
    """One ``[[train.reward]]``, ready to score.

    Attributes:
        name: Its name in logs.
        weight: What its scores are multiplied by.
        use: What the job calls it.
        place: Where the job says so: ``job.toml:12``, or ``[[train.reward]] number 2``.
        function: Called with keywords; sync or async.
        signature: Its parameters.
        args: Further keyword arguments for it.
        columns: The columns that the rows must have.
        row_fault: Says what is wrong with these columns in a row, or None; for rewards that can tell without an answer.
        notes: What a user should know before it is used, such as a limit that this machine cannot set.
    """

    name: str
    weight: float
    use: str
    place: str
    function: Callable[..., Any]
    signature: Signature
    args: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    row_fault: Callable[[Mapping[str, Any]], str | None] | None = None
    notes: tuple[str, ...] = ()
    _runner: asyncio.Runner | None = field(default=None, repr=False)

    @property
    def is_async(self) -> bool:
        """Whether its function is a coroutine function."""
        return blame.is_async(self.function)

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        context: Mapping[str, Any] | None = None,
    ) -> list[Score]:
        """Score completions.

        Args:
            prompts: One prompt for each completion: strings, or lists of messages.
            completions: The completions, in the same form.
            columns: The rows' other columns, one value for each completion.
            context: What else the trainer gives: ``completion_ids``, ``trainer_state``, ``log_extra``, ``log_metric``.

        Returns:
            One score for each completion, in order.

        Raises:
            RewardError: The function raised something, or returned what is no list of scores.
        """
        with self._answering(prompts, completions, columns, context or {}) as keywords:
            return read_scores(blame.call(self.function, keywords, self._run), len(completions))

    async def ascore(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        context: Mapping[str, Any] | None = None,
    ) -> list[Score]:
        """Score completions inside a running event loop; as :meth:`score` otherwise."""
        with self._answering(prompts, completions, columns, context or {}) as keywords:
            return read_scores(await blame.call_inside(self.function, keywords), len(completions))

    def _keywords(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any], context: Mapping[str, Any]
    ) -> dict[str, Any]:
        # What one function does to its lists and messages, the next shall not see.
        own = {name: list(values) for name, values in columns.items()}
        said = [[*map(copy.copy, each)] if isinstance(each, list) else each for each in completions]
        given = {**own, **self.args, **context, "prompts": list(prompts), "completions": said}
        return self.signature.select(given)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, in one loop for all calls: a client that the function keeps belongs to a loop."""
        if self._runner is None:
            self._runner = asyncio.Runner()
            weakref.finalize(self, self._runner.get_loop().close)
        return self._runner.run(coroutine)

    @contextlib.contextmanager
    def _answering(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any], context: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Give the function's keywords, and turn whatever it does wrong into a :class:`RewardError`."""
        if missing := [name for name in self.columns if name not in columns]:
            raise self._error(f"the rows have no {', '.join(missing)}", "name the columns that it needs in the rows")
        keywords = self._keywords(prompts, completions, columns, context)
        if missing := [name for name in self.signature.required if name not in keywords]:
            raise self._error(f"nobody gives it {', '.join(missing)} here", "give it a default")
        try:
            yield keywords
        except WrongReturnError as error:
            do = error.do or f"see {blame.defined(self.function)}"
            raise self._error(f"{error.message}{_row(columns, error.index)}", do) from error
        except ForgeError:
            raise
        except blame.FAULTS as error:

            def alone(index: int) -> None:
                part = slice(index, index + 1)
                around = {key: value[part] if key == _PER_ROW and value else value for key, value in context.items()}
                row = {key: value[part] for key, value in columns.items()}
                self.function(**self._keywords(prompts[part], completions[part], row, around))

            # Asking each row again of a service that is awaited would take long, and cost.
            index = None if self.is_async else blame.guilty(alone, len(completions), error)
            why = f"{blame.said(self.function, error)}{_row(columns, index)}"
            raise self._error(why, "mend it") from error

    def _error(self, why: str, do: str | None = None) -> RewardError:
        return RewardError(f"the reward {self.name} failed ({self.use}, {self.place})", why, do)


def _row(columns: Mapping[str, Any], index: int | None) -> str:
    if index is None:
        return ""
    origin = columns.get(ORIGIN)
    row = f", row {origin[index]}" if origin is not None else ""
    return f" (completion {index} of this batch{row})"
