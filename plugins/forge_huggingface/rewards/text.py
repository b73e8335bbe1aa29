"""Reading completions: their text, the part after the thinking, and what they put into a code block."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


_OPENS = re.compile(r"[ \t]*```[ \t]*([\w+-]*)")
_CLOSES = re.compile(r"[ \t]*```[ \t\r]*")
_THINKING_ENDS = "</think>"


def completion_text(completion: Any) -> str:
    """Return what the model wrote as one string.

    Args:
        completion: One element of ``completions``: a string where the prompt is a string; a list of messages where the
            prompt is a conversation, usually a single one from the assistant.

    Returns:
        The string itself, or the texts of the assistant's messages, joined by line breaks. Calls of tools, their
        answers and images are left out.
    """
    if isinstance(completion, str):
        return completion
    said = [_content(message.get("content")) for message in completion if message.get("role") == "assistant"]
    return "\n".join(text for text in said if text)


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def answer_of(completion: Any) -> str:
    """Return the text of a completion after the end of its thinking, if it marks one."""
    return completion_text(completion).rpartition(_THINKING_ENDS)[2].strip()


def code_block(text: str, languages: Collection[str]) -> str | None:
    """Return the last fenced block in one of the languages or in none that is named, or None."""
    found = [body for language, body in _blocks(text.split("\n")) if not language or language.lower() in languages]
    return found[-1] if found else None


def only_block(text: str, languages: Collection[str]) -> str | None:
    """Return what is in the fenced block that makes up the whole text, or None."""
    lines = text.split("\n")
    opens = _OPENS.match(lines[0])
    if len(lines) < 2 or not opens or not _CLOSES.fullmatch(lines[-1]):
        return None
    return _body(lines[1:-1]) if not opens[1] or opens[1].lower() in languages else None


def _blocks(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the language and the content of each block that is closed, from line to line: answers may be long."""
    ends = [place for place, line in enumerate(lines) if _CLOSES.fullmatch(line)]
    begin = 0
    for end in ends:
        opens = next((place for place in range(begin, end) if _OPENS.match(lines[place])), None)
        if opens is not None:
            yield _OPENS.match(lines[opens])[1], _body(lines[opens + 1 : end])  # type: ignore[index]
            begin = end + 1


def _body(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
