"""Find the assistant's answers in a rendered conversation, in characters and then in tokens.

Most chat templates do not mark answers. What they write for an answer can still be seen by rendering the conversation
up to it: as long as that is how the whole begins, the answer starts where it ends. Templates that rewrite earlier turns
(Qwen3 drops the reasoning of all but the last) need one more look, with a marker in the answer's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import BadRow, Conversation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forge_huggingface.templates import Template

_MARKER = "ANSWERQZX"
"""Letters only, so that no template trims, escapes or splits it, and no row is likely to hold it."""

Span = tuple[int, int]


def answers(template: Template, tokenizer: Any, row: Conversation, text: str) -> list[Span]:
    """Return the spans of characters of every answer in ``text``, each with its end of turn.

    Raises:
        BadRow: The template rewrites the conversation in a way that hides where an answer is.
    """
    spans: list[Span] = []
    for index, message in enumerate(row.messages):
        if message["role"] != "assistant":
            continue
        before, _ = template.render(tokenizer, row.messages[:index], tools=row.tools, prompt=True, extra=row.extra)
        end = len(text) if index == len(row.messages) - 1 else _end(template, tokenizer, row, text, index)
        if not text.startswith(before) or end is None or end <= len(before):
            raise BadRow(
                "has answers that cannot be told from the rest",
                f"the chat template {template.name} writes turn {index + 1} otherwise within the conversation than "
                "at its end, and has no {% generation %}",
                'set train_on = "completion", or a chat_template with {% generation %}',
            )
        spans.append((len(before), end))
    return spans


def _end(template: Template, tokenizer: Any, row: Conversation, text: str, index: int) -> int | None:
    """Return where the answer ``index``, which is not the last message, ends in ``text``."""

    def render(*messages: dict[str, Any]) -> str:
        return template.render(tokenizer, messages, tools=row.tools, extra=row.extra)[0]

    upto, answer, following = row.messages[:index], row.messages[index], row.messages[index + 1]
    whole = render(*upto, answer)
    if text.startswith(whole):
        return len(whole)
    # The answer is written otherwise when more follows. With a marker in its place, what follows it can be measured.
    marked = {**answer, "content": _MARKER}
    alone, followed = render(*upto, marked), render(*upto, marked, following)
    begun = render(*upto, answer, following)
    if _MARKER in text or alone.count(_MARKER) != 1 or followed.count(_MARKER) != 1 or not text.startswith(begun):
        return None
    closing, rest = alone.split(_MARKER)[1], followed.split(_MARKER)[1]
    if not rest.startswith(closing) or not begun.endswith(rest):
        return None
    return len(begun) - len(rest) + len(closing)


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
