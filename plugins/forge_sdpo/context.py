"""What the teacher sees that the student did not: a sibling's success, or feedback on the student's own attempt.

The paper's Table 2: the last turn of the question becomes question, demonstration and feedback, in templates; all
earlier turns stay. The failed attempt itself is not shown, which the paper found harmful (Table 6). Everything here is
plain Python over texts and numbers, so that every choice can be tested by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import DataError

if TYPE_CHECKING:
    from forge_sdpo.options import Sdpo

THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
GAP = " […] "
"""Stands where a text was cut."""

Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is known of one rollout of the whole batch, on every process.

    Attributes:
        reward: The weighted sum of its rewards; NaN if none could be given.
        answer: Its text, if the reward is enough for a demonstration.
    """

    reward: float
    answer: str | None


@dataclass(frozen=True, slots=True)
class Context:
    """A teacher's context for one rollout; without both parts there is no teacher for it."""

    demonstration: str | None = None
    feedback: str | None = None

    def __bool__(self) -> bool:
        return self.demonstration is not None or self.feedback is not None


def is_success(reward: float, threshold: float) -> bool:
    """Whether a summed reward is enough for a demonstration: 0.3 + 0.7 is not 1 in float32, and counts as 1."""
    return reward >= threshold or math.isclose(reward, threshold, rel_tol=1e-5, abs_tol=1e-6)


def strip_thinking(text: str) -> str:
    """Return an answer without its thoughts: whole blocks, the rest of one that the prompt opened, one never closed."""
    text = THINKING.sub("", text)
    if "</think>" in text:  # the generation prompt can hold the opening tag
        text = text.partition("</think>")[2]
    return text.partition("<think>")[0].strip()


def demonstration_of(answer: str, settings: Sdpo) -> str | None:
    """Return what a successful rollout shows; None if nothing is left of it."""
    text = strip_thinking(answer) if settings.remove_thinking_from_demonstration else answer.strip()
    return text or None


def contexts(
    rollouts: Sequence[Rollout], feedback: Sequence[str | None], first: int, group: int, settings: Sdpo
) -> list[Context]:
    """Choose the contexts of one process's rollouts.

    Args:
        rollouts: All rollouts of the batch, of all processes; each ``group`` of them answers one question.
        feedback: The process's own feedback, one a rollout.
        first: The index among ``rollouts`` of the process's first.
        group: Rollouts a question.
        settings: The job's settings.
    """
    shown = [None if r.answer is None else demonstration_of(r.answer, settings) for r in rollouts]
    return [_context(first + index, shown, said, group, settings) for index, said in enumerate(feedback)]


def _context(index: int, shown: Sequence[str | None], said: str | None, group: int, settings: Sdpo) -> Context:
    demonstration = None
    if settings.use_successful_as_teacher:
        start = index // group * group
        siblings = (
            i for i in range(start, start + group) if not (settings.dont_reprompt_on_self_success and i == index)
        )
        demonstration = next((shown[i] for i in siblings if shown[i] is not None), None)
    useful = isinstance(said, str) and said.strip() != ""
    wanted = settings.feedback == "always" or (settings.feedback == "without-solution" and demonstration is None)
    return Context(demonstration, said if useful and wanted else None)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template's named fields, in one pass: braces in values and other braces stay as they are."""
    fields = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({fields})\}}", lambda match: values[match[1]], template)


def reprompt(prompt: Prompt, context: Context, settings: Sdpo) -> Prompt:
    """Return the teacher's prompt, in the form of the student's.

    Raises:
        DataError: The conversation does not end with a user's turn, or its turn has an image.
    """
    solution = feedback = ""
    if context.demonstration is not None:
        solution = fill(settings.solution_template, {"successful_previous_attempt": context.demonstration})
    if context.feedback is not None:
        feedback = fill(settings.feedback_template, {"feedback_raw": context.feedback})

    def turn(question: str) -> str:
        values = {"prompt": question, "solution": solution, "feedback": feedback}
        return fill(settings.reprompt_template, values)

    if isinstance(prompt, str):
        return turn(prompt)
    return [*prompt[:-1], {**prompt[-1], "content": turn(question_of(prompt))}]


def question_of(prompt: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a conversation's last turn, which must be the user's and text only."""
    last = prompt[-1] if prompt else {}
    if last.get("role") != "user":
        why = f"the last turn's role is {last.get('role')!r}"
        raise DataError("SDPO cannot show its teacher this prompt", why, "end every prompt with a user's turn")
    content = last.get("content") or ""
    if isinstance(content, str):
        return content
    kinds = {part.get("type") for part in content}
    if kinds - {"text"}:
        why = f"it has parts of the type {', '.join(sorted(map(str, kinds - {'text'})))}"
        raise DataError("SDPO works with text only, and a prompt is more", why, 'take method = "grpo" for images')
    return " ".join(part.get("text", "") for part in content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitter:
    """Makes a teacher's prompt that fits.

    Attributes:
        render: Returns the token ids of a prompt, generation prompt included.
        encode: Returns the token ids of a text.
        decode: Returns the text of token ids.
        limit: The most tokens of a teacher's prompt.
    """

    render: Callable[[Prompt], list[int]]
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    limit: int

    def fit(self, prompt: Prompt, context: Context, settings: Sdpo) -> tuple[list[int] | None, bool]:
        """Return the ids of the teacher's prompt, and whether something had to be cut.

        The middle of the demonstration goes first, then the middle of the feedback. Question, templates and generation
        prompt are never cut: None is returned if they alone are too long.
        """
        ids = self.render(reprompt(prompt, context, settings))
        if len(ids) <= self.limit:
            return ids, False
        for part in ("demonstration", "feedback"):
            text = getattr(context, part)
            if text is None:
                continue
            inside = self.encode(text)
            room = len(inside) - (len(ids) - self.limit)
            while room > 0:
                context = _with(context, part, self._middle_out(inside, room))
                ids = self.render(reprompt(prompt, context, settings))
                if len(ids) <= self.limit:
                    return ids, True
                room -= len(ids) - self.limit  # tokens of a text need not be those that it has within another
            context = _with(context, part, None)
            if not context:
                return None, True
            ids = self.render(reprompt(prompt, context, settings))
            if len(ids) <= self.limit:
                return ids, True
        return None, True

    def _middle_out(self, ids: list[int], room: int) -> str:
        head = (room + 1) // 2
        tail = room - head
        return self.decode(ids[:head]) + GAP + (self.decode(ids[-tail:]) if tail else "")


def _with(context: Context, part: str, text: str | None) -> Context:
    if part == "demonstration":
        return Context(text, context.feedback)
    return Context(context.demonstration, text)
