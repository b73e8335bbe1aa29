"""Where the reasoning of an answer stands: in a key of its own, or within the text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from forge_huggingface.rows import text_of

if TYPE_CHECKING:
    from forge_huggingface.rows import Message


KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message under which templates look for reasoning; rows have it under the first."""

END = "</think>"

EMPTY = re.compile(r"<think>\s*</think>\s*")
"""What stands in place of reasoning, where there is none."""

_THOUGHT = re.compile(rf"\s*(?:<think>)?(.*?){END}(.*)", re.DOTALL)
"""The opening tag may stand in the prompt, as in DeepSeek R1's rows."""


def reasoning_of(message: Message) -> tuple[str, str]:
    """Return the reasoning of an answer, and the rest of its text.

    >>> reasoning_of({"role": "assistant", "content": "<think>add</think>4"})
    ('add', '4')
    """
    said = text_of(message["content"])
    if thought := message.get("reasoning_content"):
        return str(thought).strip("\n"), said
    found = _THOUGHT.fullmatch(said)
    return (found[1].strip("\n"), found[2].lstrip("\n")) if found else ("", said)
