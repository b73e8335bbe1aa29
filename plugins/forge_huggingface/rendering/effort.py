"""What a long conversation may cost: what is asked of a template costs a rendering, and there are many messages.

Answers that are written alike are found by a few renderings, and what still takes one for each message has a bound.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import BadRow, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forge_huggingface.rows import Message


MOST = 1_000_000
"""How many messages may be rendered for one row: a second of work for a short template, twenty for a long one."""

_SAMPLES = 8
_MARK = re.compile(r"ANSWER(\d+)QZX")


class Effort:
    """Counts the messages that are rendered for a row."""

    def __init__(self) -> None:
        self.left = MOST

    def spend(self, count: int) -> None:
        """Count a rendering of so many messages. Raises :class:`BadRow` once the row has had its share."""
        self.left -= count
        self.check()

    def check(self) -> None:
        """Raise :class:`BadRow` if the row has had its share."""
        if self.left < 0:
            raise BadRow(
                "has too many messages for its chat template",
                f"what each says is found by rendering again and again, and {MOST:,} messages were not enough",
                'split it, set train_on = "completion", or set a chat_template with {% generation %}',
            )


def alike(
    messages: Sequence[Message],
    text: str,
    closing: str | None,
    render: Callable[..., str],
    exact: Callable[[int], Span | None],
) -> dict[int, Span]:
    """Return the spans of the answers of a long conversation that are written as those that were looked at one by one.

    A single rendering with a marker in place of each tells where they are. The first ones and the last must be where
    the exact way finds them, and before each of the others must stand what stands before those: the head of an answer.

    Args:
        messages: The conversation.
        text: What the template writes for it.
        closing: What the template writes behind any answer.
        render: Renders messages.
        exact: Returns the span of an answer, by several renderings.

    Returns:
        The spans by the index of the message; none where the template does not write answers as they are.
    """
    plain = [at for at, message in enumerate(messages[:-1]) if _is_plain(message)]
    if not closing or len(plain) <= 2 * _SAMPLES or _MARK.search(text):
        return {}
    marked = list(messages)
    for at in plain:
        marked[at] = {**messages[at], "content": f"ANSWER{at}QZX"}
    try:
        pieces = _MARK.split(render(*marked))
        asked = render(*messages[: plain[0]], prompt=True)
        head = asked.removeprefix(render(*messages[: plain[0]]))
    except BadRow:
        return {}
    if pieces[1::2] != [str(at) for at in plain] or not head or head == asked:
        return {}
    spans: dict[int, Span] = {}
    place = 0
    *before, rest = pieces[::2]
    for at, head_of in zip(plain, before, strict=True):
        if not text.startswith(head_of, place):
            return {}
        place += len(head_of)
        said = messages[at]["content"]
        end = place + len(said)
        if not text.startswith(said, place):
            return {}
        if text.endswith(head, 0, place) and text.startswith(closing, end):
            spans[at] = place, end + len(closing)
        place = end
    tried = [*plain[:_SAMPLES], *plain[-2:]]
    return spans if text[place:] == rest and all(spans.get(at) == exact(at) for at in tried) else {}


def _is_plain(message: Message) -> bool:
    """Whether a message is an answer that is nothing but its text."""
    said: Any = message["content"]
    if message["role"] != "assistant" or "tool_calls" in message or "reasoning_content" in message:
        return False
    return isinstance(said, str) and said == said.strip() != "" and "think>" not in said
