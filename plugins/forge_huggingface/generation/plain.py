"""Runs on plain text: what they trained is asked to continue a text, by whatever program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import UsageError
from forge.disk.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SAID = "the run trained on plain text, so what is written is continued, without any system message"


def trained_on_plain_text(folder: Path) -> bool:
    """Whether no row that a run trained on had a chat template around it."""
    recorded = RunFolder(folder).data() or {}
    return recorded.get("summary", {"template": ""}).get("template", "") is None


def text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a conversation as the text that is to be continued, without a system message, which no row had.

    Raises:
        UsageError: It holds an image.
    """
    texts = [message["content"] for message in messages if message["role"] != "system"]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("the message has an image", "the run trained on plain text", "leave it out")
    return "".join(texts)
