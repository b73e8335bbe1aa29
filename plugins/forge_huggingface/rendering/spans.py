"""Find the assistant's answers in a rendered conversation, in characters and then in tokens.

Most chat templates do not mark answers. What they write for an answer can still be seen by rendering the conversation
up to it: as long as that is how the whole begins, the answer starts where it ends. Many templates write a turn
otherwise once it is history (they drop its reasoning, or end it with another token); then a marker in the answer's
place shows where it lies.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from forge_huggingface.rendering.effort import alike
from forge_huggingface.rows import BadRow, Conversation, Span, parting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from forge_huggingface.rendering.templates import Template


MARKER = "ANSWERQZX"
"""Letters only, so that no template trims, escapes or splits it, and no row is likely to hold it."""


def answers(template: Template, tokenizer: Any, row: Conversation, text: str) -> dict[int, Span]:
    """Return the span of characters of every answer in ``text``, with its end of turn, by the message's index.

    Raises:
        BadRow: The template rewrites the conversation in a way that hides where an answer is.
    """

    def render(*messages: dict[str, Any], prompt: bool = False) -> str:
        return template.render(tokenizer, messages, tools=row.tools, prompt=prompt, extra=row.extra)[0]

    def exact(index: int) -> Span | None:
        return _answer(template, tokenizer, row, text, index)

    known = alike(row.messages, text, template.traits.closing, render, exact)
    spans: dict[int, Span] = {}
    last = 0
    for index, message in enumerate(row.messages):
        if message["role"] != "assistant":
            continue
        span = known.get(index) or exact(index)
        if span is None or span[0] >= span[1] or span[0] < last:
            raise BadRow(
                "has answers that cannot be told from the rest",
                f"the chat template {template.name} writes turn {index + 1} otherwise within the conversation than "
                "at its end, and has no {% generation %}",
                'set train_on = "completion", or a chat_template with {% generation %}',
            )
        spans[index], last = span, span[1]
    return spans


def turn(template: Template, tokenizer: Any, row: Conversation, text: str, index: int) -> Span:
    """Return the span of characters of what a message says, with its end of turn, whoever says it.

    Raises:
        BadRow: The template hides where it is.
    """
    message = row.messages[index]
    if message["role"] == "assistant":
        span = _answer(template, tokenizer, row, text, index)
    else:
        upto, after = row.messages[:index], row.messages[index + 1 :]
        marked = {**message, "content": MARKER}

        def render(*messages: dict[str, Any]) -> str:
            return template.render(tokenizer, messages, tools=row.tools, extra=row.extra)[0]

        full = render(*upto, marked, *after)
        head, _, tail = full.partition(MARKER)
        span = None
        if full.count(MARKER) == 1 and text.startswith(head) and text.endswith(tail):
            end = len(text) - len(tail)
            closed = special(tokenizer).match(tail.lstrip())
            ends = closed is not None and closed[0] in template.traits.ends
            span = len(head), end + (len(tail) - len(tail.lstrip()) + len(closed[0]) if closed and ends else 0)
    if span is None or span[0] >= span[1]:
        raise BadRow(
            f"has a flag at message {index + 1}, which cannot be told from the rest",
            f"the chat template {template.name} does not write it as it is",
            "remove the flag, or set another chat_template",
        )
    return span


def _answer(template: Template, tokenizer: Any, row: Conversation, text: str, index: int) -> Span | None:
    def render(*messages: dict[str, Any], prompt: bool = False) -> str:
        return template.render(tokenizer, messages, tools=row.tools, prompt=prompt, extra=row.extra)[0]

    upto, answer, after = row.messages[:index], row.messages[index], row.messages[index + 1 :]
    start = end = None
    with suppress(BadRow):  # some templates stop at an empty conversation, or at one that is not at its end
        before = render(*upto, prompt=True)
        start = len(before) if text.startswith(before) else None
    if not after:
        end = len(text)
    elif start is not None and (found := _behind(text, start, answer, template.traits.closing)):
        end = found
    else:
        with suppress(BadRow):
            whole = render(*upto, answer)
            end = len(whole) if text.startswith(whole) else None
    if start is not None and end is not None:
        return start, end
    # The turn is written otherwise as history than when it is asked for or stands last.
    marked = {**answer, "content": MARKER}
    full, alone = render(*upto, marked, *after), render(*upto, marked)
    if MARKER in text or full.count(MARKER) != 1 or alone.count(MARKER) != 1:
        return None
    head, tail = full.split(MARKER)
    if start is None:
        start = _behind_head(text, _asking(render, upto), len(text) - len(tail)) or parting(head, text)
    if end is None:
        if not text.endswith(tail):
            return None
        end = len(text) - len(tail) + _closing(tokenizer, alone.split(MARKER)[1], tail, template.traits.ends)
    return start, end


def _behind(text: str, start: int, answer: dict[str, Any], closing: str | None) -> int | None:
    """Return where an answer that is nothing but its text ends, if it is written as it is and closed as any other."""
    said = answer["content"]
    if closing is None or not isinstance(said, str) or "tool_calls" in answer or "reasoning_content" in answer:
        return None
    end = start + len(said)
    return end + len(closing) if text.startswith(said, start) and text.startswith(closing, end) else None


def _asking(render: Callable[..., str], upto: Sequence[dict[str, Any]]) -> str:
    """Return the head of an answer: what a template writes behind a conversation only if it asks for one."""
    with suppress(BadRow):
        return render(*upto, prompt=True)[len(render(*upto)) :]
    return ""


def _behind_head(text: str, head: str, end: int) -> int | None:
    """Return where an answer begins whose text ends at a place: behind the last head of an answer before that.

    What a template opens for reasoning when it asks for an answer, it need not write in an earlier one.
    """
    for form in (head, head.partition("<think>")[0]):
        if form.strip() and (at := text.rfind(form, 0, end)) >= 0:
            return at + len(form)
    return None


def _closing(tokenizer: Any, last: str, tail: str, ends: frozenset[str]) -> int:
    """Return how much of ``tail`` ends the turn.

    That is what also ends a last turn (``last``), token by token; or, where a turn that is history ends with a token of
    its own, that token, if it is one that ends turns (``ends``) and does not begin the next.
    """
    length = 0
    pieces = _pieces(tokenizer, last)
    for piece in pieces:
        if not tail.startswith(piece, length):
            break
        length += len(piece)
    if not length and (first := special(tokenizer).match(tail)) and first[0] in ends:
        length = len(first[0])
    return length


def _pieces(tokenizer: Any, text: str) -> list[str]:
    """Cut a text around the tokens that are never split."""
    return [piece for piece in special(tokenizer).split(text) if piece]


def special(tokenizer: Any) -> re.Pattern[str]:
    """Return what finds the tokens that are never split in a text."""
    return _pattern(tuple(sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)))


@lru_cache(maxsize=4)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"({'|'.join(map(re.escape, names))})")


def starts_at(offsets: Sequence[Span], character: int) -> int:
    """Return the first token that holds anything from ``character`` on.

    A token across the boundary belongs to what follows: without it, what follows could not be written.
    """
    return next((index for index, (_, end) in enumerate(offsets) if end > character), len(offsets))


def inside(offsets: Sequence[Span], spans: Iterable[Span]) -> list[Span]:
    """Return the runs of tokens that lie in spans of characters, one after the other.

    Offsets of white space may be empty and at its end (byte-level tokenizers trim it), hence the two conditions.
    """
    runs: list[Span] = []
    index = 0
    for start, end in spans:
        while index < len(offsets) and offsets[index][1] <= start:
            index += 1
        first = index
        while index < len(offsets) and (offsets[index][1] <= end or offsets[index][0] < end):
            index += 1
        if index > first:
            runs.append((first, index))
    return runs
