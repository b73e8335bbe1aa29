"""Whether a rendered text holds all that its row says.

Templates drop what they do not know without a word: tool calls, reasoning, the system text, a whole answer. The model
then learns to answer with nothing. So everything that a row holds is looked for in what the template wrote, in the
order of the turns; what stands elsewhere, or is written otherwise, is looked for again with a marker in its place.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forge_huggingface.rendering.reasoning import END, reasoning_of
from forge_huggingface.rows import CALL_TEXT, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from forge_huggingface.rows import Message


READ = frozenset({"role", "content", "tool_calls", "reasoning_content", "name", "tool_call_id", CALL_TEXT})
"""The keys of a message that are looked for, or that only name what is."""

TEXT, REASONING, CALL = "text", "reasoning", "tool call"
"""What of a message can be asked for with a marker in its place."""


def lost(
    messages: Sequence[Message],
    tools: Sequence[Any] | None,
    text: str,
    writes: Callable[[int, str, int], bool],
    *,
    forgets: bool = False,
) -> Iterator[tuple[int, str]]:
    """Yield what of a row is not in its text: the number of the message, 0 for the tools, and what of it.

    Args:
        messages: The row's messages.
        tools: Its tools.
        text: What the template wrote.
        writes: Tells whether the template writes the text, the reasoning or a tool call of a message, by its index and
            the call's, wherever and in whatever form.
        forgets: Whether it leaves the reasoning of answers before the last question out.
    """
    for tool in tools or ():
        if (gone := next((value for value in _described(tool) if not _holds(text, value)), None)) is not None:
            yield 0, f"the tools ({_short(gone)})"
            break
    forgotten = _in_order(messages, text, forgets)
    if forgotten is None:
        yield from _one_by_one(messages, text, writes)
    else:
        yield from ((index + 1, REASONING) for index in forgotten)
    for index, message in enumerate(messages):
        if message["role"] == "tool" and (name := str(message.get("name") or "")) not in text:
            yield index + 1, f"the tool's name ({_short(name)})"


def _in_order(messages: Sequence[Message], text: str, forgets: bool) -> list[int] | None:
    """Look for all that messages say, each behind the one before: so it is where nothing is lost.

    Returns:
        The messages whose reasoning is left out, where the template forgets; None if anything else is not in its place.
    """
    at, forgotten = 0, []
    asked = _last_question(messages) if forgets else -1
    for index, message in enumerate(messages):
        thought, said = _split(message, text, at)
        start = at
        for part in said if thought and index < asked else [thought, *said] if thought else said:
            end = _find(text, part, at)
            if end is None:
                return None
            at = end
        if thought and index < asked and _find(text[start : at if said else None], thought, 0) is None:
            forgotten.append(index)
        for call in message.get("tool_calls") or ():
            name, *arguments = _called(call)
            end = _find(text, name, at)
            if end is None or any(_find(text, each, end) is None for each in arguments):
                return None
            at = end
    return forgotten


def _last_question(messages: Sequence[Message]) -> int:
    return max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)


def _one_by_one(
    messages: Sequence[Message], text: str, writes: Callable[[int, str, int], bool]
) -> Iterator[tuple[int, str]]:
    """Yield what is lost, where the order alone does not tell: words that occur twice, or a turn in another place."""
    for index, message in enumerate(messages):
        thought, said = _split(message, text, 0)
        if thought and not (_holds(text, thought) and writes(index, REASONING, 0)):
            yield index + 1, REASONING
        if said and not (all(_holds(text, part) for part in said) and writes(index, TEXT, 0)):
            yield index + 1, TEXT
        for number, call in enumerate(message.get("tool_calls") or ()):
            called = _called(call)
            gone = next((each for each in called if not _holds(text, each)), None)
            if gone is not None or not writes(index, CALL, number):
                yield index + 1, f"the tool call ({_short(gone or called[0])})"
                break


def marked(message: Message, what: str, number: int, marker: str) -> Message:
    """Return a message with a marker in place of its text, its reasoning or the name of what it calls."""
    if what == CALL:
        calls = list(message["tool_calls"])
        calls[number] = {**calls[number], "function": {**calls[number]["function"], "name": marker}}
        return {**message, "tool_calls": calls, **({CALL_TEXT: marker} if CALL_TEXT in message else {})}
    if what == REASONING and message.get("reasoning_content"):
        return {**message, "reasoning_content": marker}
    if what == REASONING:
        return {**message, "content": f"<think>\n{marker}\n{END}\n\n{reasoning_of(message)[1]}"}
    return {**message, "content": marker}


def unread(messages: Sequence[Message], words: frozenset[str], text: str) -> list[str]:
    """Return the keys of messages that a template with these words does not read."""
    found = {key for message in messages for key in message if key not in READ and key not in words}
    named = (str(message["name"]) for message in messages if message.get("name") and message["role"] != "tool")
    if any(name not in text for name in named):
        found.add("name")
    return sorted(found)


def _split(message: Message, text: str, at: int) -> tuple[str, list[str]]:
    """Return the reasoning of a message, if it is to be looked for by itself, and its texts."""
    texts = [part["text"] for part in parts_of(message["content"]) if part.get("type") == "text"]
    said = [stripped for part in texts if (stripped := part.strip())]
    inline = END in said[0] if len(said) == 1 else False
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


def _called(call: Any) -> list[str]:
    """Return the name of what is called, and the names, texts and whole numbers in its arguments.

    Other numbers, truth values and nulls are written in too many ways to be looked for.
    """
    function = call.get("function", call)
    return [str(function.get("name") or ""), *_leaves(function.get("arguments"))]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str) and (stripped := value.strip()):
        yield stripped
    elif type(value) is int:
        yield str(value)


def _described(tool: Any) -> Iterator[str]:
    function = tool.get("function", tool) if isinstance(tool, dict) else {}
    yield from (value.strip() for key in ("name", "description") if isinstance(value := function.get(key), str))
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    yield from properties if isinstance(properties, dict) else ()


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:39] + "…")
