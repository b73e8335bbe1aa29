"""Whether a rendered text holds all that its row says.

Templates drop what they do not know without a word: tool calls, reasoning, the system text, a whole answer. The model
then learns to answer with nothing. So everything that a row holds is looked for in what the template wrote, in the
order of the turns; what stands elsewhere, or is written otherwise, is looked for again with a marker in its place.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import parts_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from forge_huggingface.rows import Message


_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)

READ = frozenset({"role", "content", "tool_calls", "reasoning_content", "name", "tool_call_id"})
"""The keys of a message that are looked for, or that only name what is."""

TEXT, REASONING, CALL = "text", "reasoning", "tool call"
"""What of a message can be asked for with a marker in its place."""


def lost(
    messages: Sequence[Message], tools: Sequence[Any] | None, text: str, writes: Callable[[int, str], bool]
) -> Iterator[tuple[int, str]]:
    """Yield what of a row is not in its text: the number of the message, 0 for the tools, and what of it.

    Args:
        messages: The row's messages.
        tools: Its tools.
        text: What the template wrote.
        writes: Tells whether the template writes the text, the reasoning or the tool call of a message, by its index,
            wherever and in whatever form.
    """
    for tool in tools or ():
        if (gone := next((value for value in _described(tool) if not _holds(text, value)), None)) is not None:
            yield 0, f"the tools ({_short(gone)})"
            break
    if not _in_order(messages, text):
        yield from _one_by_one(messages, text, writes)
    for index, message in enumerate(messages):
        if message["role"] == "tool" and (name := message.get("name")) and name not in text:
            yield index + 1, f"the tool's name ({_short(name)})"


def _in_order(messages: Sequence[Message], text: str) -> bool:
    """Tell whether all that messages say is there, each behind the one before: so it is where nothing is lost."""
    at = 0
    for message in messages:
        thought, said = _split(message, text, at)
        for part in [thought, *said] if thought else said:
            end = _find(text, part, at)
            if end is None:
                return False
            at = end
        for call in message.get("tool_calls") or ():
            if any(_find(text, each, at) is None for each in _called(call)):
                return False
    return True


def _one_by_one(
    messages: Sequence[Message], text: str, writes: Callable[[int, str], bool]
) -> Iterator[tuple[int, str]]:
    """Yield what is lost, where the order alone does not tell: words that occur twice, or a turn in another place."""
    for index, message in enumerate(messages):
        thought, said = _split(message, text, 0)
        if thought and not (_holds(text, thought) and writes(index, REASONING)):
            yield index + 1, REASONING
        if said and not (all(_holds(text, part) for part in said) and writes(index, TEXT)):
            yield index + 1, TEXT
        called = [each for call in message.get("tool_calls") or () for each in _called(call)]
        gone = next((each for each in called if not _holds(text, each)), None)
        if called and (gone is not None or not writes(index, CALL)):
            yield index + 1, f"the tool call ({_short(gone or called[0])})"


def marked(message: Message, what: str, marker: str) -> Message:
    """Return a message with a marker in place of its text, its reasoning or the name of what it calls."""
    if what == CALL:
        call = {"id": "callabcde", "type": "function", **message["tool_calls"][0]}
        return {**message, "tool_calls": [{**call, "function": {**call["function"], "name": marker}}]}
    if what == REASONING and message.get("reasoning_content"):
        return {**message, "reasoning_content": marker}
    if what == REASONING:
        return {**message, "content": f"<think>\n{marker}\n</think>\n\n{reasoning_of(message)[1]}"}
    return {**message, "content": marker}


def unread(messages: Sequence[Message], words: frozenset[str], text: str) -> list[str]:
    """Return the keys of messages that a template with these words does not read."""
    found = {key for message in messages for key in message if key not in READ and key not in words}
    if any("name" in message and message["role"] != "tool" and message["name"] not in text for message in messages):
        found.add("name")
    return sorted(found)


def reasoning_of(message: Message) -> tuple[str, str]:
    """Return the reasoning of an answer, in a key of its own or within the text, and the rest of the text."""
    said = text_of(message["content"])
    if thought := message.get("reasoning_content"):
        return str(thought).strip("\n"), said
    found = _THOUGHT.fullmatch(said)
    return (found[1].strip("\n"), found[2].lstrip("\n")) if found else ("", said)


def _split(message: Message, text: str, at: int) -> tuple[str, list[str]]:
    """Return the reasoning of a message, if it is to be looked for by itself, and its texts."""
    texts = [part["text"] for part in parts_of(message["content"]) if part.get("type") == "text"]
    said = [stripped for part in texts if (stripped := part.strip())]
    inline = "</think>" in said[0] if len(said) == 1 else False
    if message.get("reasoning_content") or (inline and _find(text, said[0], at) is None):
        # Templates that know reasoning within the text take it out of earlier answers.
        thought, rest = reasoning_of(message)
        return thought.strip(), said if not inline else [rest.strip()] if rest.strip() else []
    return "", said


def _find(text: str, value: str, at: int) -> int | None:
    """Return where a value ends in a text, from a place on; None if it is not there."""
    for form in _forms(value):
        found = text.find(form, at)
        if found >= 0:
            return found + len(form)
    return None


def _forms(value: str) -> Iterator[str]:
    """Yield the ways in which templates write a text: as it is, or as JSON."""
    yield value
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    if escaped != value:
        yield escaped
    ascii_ = json.dumps(value)[1:-1]
    if ascii_ != escaped:
        yield ascii_


def _holds(text: str, value: str, at: int = 0) -> bool:
    return _find(text, value, at) is not None or "".join(value.split()) in "".join(text[at:].split())


def _called(call: Any) -> Iterator[str]:
    function = call.get("function", call)
    yield str(function.get("name") or "")
    yield from _leaves(function.get("arguments"))


def _leaves(value: Any) -> Iterator[str]:
    """Yield the names and texts in a tool call's arguments. Numbers are written in too many ways to be looked for."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str) and (stripped := value.strip()):
        yield stripped


def _described(tool: Any) -> Iterator[str]:
    function = tool.get("function", tool) if isinstance(tool, dict) else {}
    yield from (value.strip() for key in ("name", "description") if isinstance(value := function.get(key), str))
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    yield from properties if isinstance(properties, dict) else ()


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:39] + "…")
