"""The metrics of one job, and what they say of a model's answers, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import DataError, UsageError, measured_by
from forge_huggingface.evaluation import functions
from forge_huggingface.evaluation.metrics import PASS, is_function, judged, pass_at_k
from forge_huggingface.rewards import load as rewards
from forge_huggingface.rewards.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forge.api import Job, Run
    from forge_huggingface.evaluation.questions import HeldOut, Question
    from forge_huggingface.rewards.reward import Reward


Values = dict[str, "list[float | None]"]
"""By name of a value, one for each row; None where the row does not count."""


class Judge:
    """Judges answers by the metrics of ``[eval]``.

    Args:
        job: The job.
        run: The run, for messages about rewards.

    Attributes:
        count: How many answers it wants of each row.
        metrics: The names of those that judge answers to rows; plugins' own questions are not among them.

    Raises:
        UsageError: A function or reward cannot be had.
    """

    def __init__(self, job: Job, run: Run) -> None:
        assert job.eval is not None
        self.table = job.eval
        self.metrics = [name for name in self.table.metrics if measured_by(name) is None]
        self.builtin = [name for name in self.metrics if not is_function(name) and not PASS.fullmatch(name)]
        self.functions = [functions.load(job, name) for name in self.metrics if is_function(name)]
        self.ks = [int(found[1]) for name in self.metrics if (found := PASS.fullmatch(name))]
        self.count = self.table.num_generations or max(self.ks, default=1)
        self.rewards: list[Reward] = []
        if self.ks:
            every = rewards.load(job, run)
            self.rewards = [reward for reward in every if not isinstance(reward.function, Scorer)]  # it passes nothing

    def check(self, rows: HeldOut) -> None:
        """Refuse rows that the metrics cannot judge. Raises :class:`DataError`."""
        if not self.metrics:
            return
        names = ", ".join(self.metrics)
        if not rows.asked:
            raise DataError(
                f"{rows.name} has no rows to ask",
                f"they are plain texts, and {names} need answers",
                "remove the metrics, or take rows with prompts",
            )
        if self.builtin and all(question.reference is None for question in rows.asked):
            raise DataError(
                f"the rows of {rows.name} have no answers of their own",
                f"{', '.join(self.builtin)} compare with them",
                "take a function or pass@k, which need none",
            )
        if self.rewards:
            there = set.intersection(*({*question.columns} for question in rows.asked))
            rewards.check_columns(self.rewards, there, rows=f"the rows of {rows.name}")

    def rehearse(self, rows: HeldOut) -> None:
        """Try the functions on the rows' own answers. Raises :class:`forge.errors.ForgeError` for what goes wrong."""
        self.check(rows)
        asked = rows.asked
        if asked and self.functions:
            self._functions(asked, [[question.reference or ""] for question in asked])

    def judge(self, questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> Values:
        """Return the values of all metrics.

        Args:
            questions: The rows.
            answers: What was said to each, :attr:`count` times; values are means over them.
        """
        references = [question.reference for question in questions]
        values: Values = {}
        for name in self.builtin:
            values |= _means(
                answers, lambda flat, index, name=name: judged(name, flat, [references[at] for at in index])
            )
        for key, found in self._functions(questions, answers).items():
            if key in values:
                raise UsageError(f'two metrics give a value "{key}"', None, "rename one that your function returns")
            values[key] = found
        if self.ks:
            values |= self._pass(questions, answers)
        return values

    def _functions(self, questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> Values:
        found: Values = {}
        for function in self.functions:

            def call(flat: Sequence[str], index: Sequence[int], function: functions.Function = function) -> Values:
                chosen = [questions[at] for at in index]
                return function.judge(
                    [question.asked for question in chosen],
                    flat,
                    [question.reference for question in chosen],
                    [question.columns for question in chosen],
                    [question.origin for question in chosen],
                )

            for key, values in _means(answers, call).items():
                if key in found:
                    raise UsageError(f'two metrics give a value "{key}"', f"one of them is {function.use}", "rename it")
                found[key] = values
        return found

    def _pass(self, questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> Values:
        """Return pass@k: an answer passes if the weighted sum of its rewards reaches ``pass_reward``."""
        needed = self.table.pass_reward
        if needed is None:
            needed = sum(reward.weight for reward in self.rewards if reward.weight > 0)

        def rewarded(flat: Sequence[str], index: Sequence[int]) -> Values:
            chosen = [questions[at] for at in index]
            prompts = [question.asked for question in chosen]
            # As an online trainer gives them: an answer to messages is a message.
            said: list[Any] = [
                text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
                for text, prompt in zip(flat, prompts, strict=True)
            ]
            names = dict.fromkeys(name for question in chosen for name in question.columns)
            columns: dict[str, list[Any]] = {
                name: [question.columns.get(name) for question in chosen] for name in names
            }
            columns["origin"] = [question.origin for question in chosen]
            totals = [0.0] * len(flat)
            for reward in self.rewards:
                for at, score in enumerate(reward.score(prompts, said, columns)):
                    totals[at] += reward.weight * (score.score or 0.0)
            return {"passed": [float(total >= needed - 1e-9) for total in totals]}

        rights = [row.count(1.0) for row in _by_row(answers, rewarded)["passed"]]
        return {f"pass@{k}": [pass_at_k(self.count, right, k) for right in rights] for k in self.ks}


def _by_row(
    answers: Sequence[Sequence[str]], judge: Callable[[Sequence[str], Sequence[int]], Mapping[str, list[float | None]]]
) -> dict[str, list[list[float | None]]]:
    """Judge all answers at once, and return the values of each row's answers."""
    index = [at for at, row in enumerate(answers) for _ in row]
    flat = judge([text for row in answers for text in row], index)
    found: dict[str, list[list[float | None]]] = {}
    for name, values in flat.items():
        rows: list[list[float | None]] = [[] for _ in answers]
        for at, value in zip(index, values, strict=True):
            rows[at].append(value)
        found[name] = rows
    return found


def _means(answers: Sequence[Sequence[str]], judge: Callable[..., Mapping[str, list[float | None]]]) -> Values:
    """Return the mean of each row's values, None where none counts."""
    return {
        name: [
            sum(kept) / len(kept) if (kept := [value for value in row if value is not None]) else None for row in rows
        ]
        for name, rows in _by_row(answers, judge).items()
    }
