"""The part of Go's ``text/template`` that Ollama's templates use, with the variables that Ollama sets.

It stands in for Ollama, which no test can install. Known are text, ``{{ .Content }}``, ``{{ "text" }}``, ``range``,
``if``, ``else if``, ``else``, ``end``, ``eq``, ``not``; anything else is an error.
"""

from __future__ import annotations

import re
from typing import Any

Messages = list[dict[str, str]]


def render(template: str, messages: Messages) -> str:
    """Render a conversation as Ollama does: ``.System`` is its system messages, ``.Messages`` are all."""
    told = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
    parts = re.split(r"(\{\{.*?\}\})", template, flags=re.DOTALL)
    names = [{"Role": each["role"], "Content": each["content"]} for each in messages]
    text, rest = _run(parts, 0, {"System": told, "Messages": names}, live=True)
    assert rest == len(parts), "an end too many"
    return text


def _run(parts: list[str], at: int, scope: dict[str, Any], *, live: bool) -> tuple[str, int]:
    """Run until the end of a block; return what it writes and where its ``end`` or ``else`` stands."""
    text = ""
    while at < len(parts):
        part = parts[at]
        if not part.startswith("{{"):
            text += part if live else ""
            at += 1
            continue
        words = part[2:-2].strip()
        if words == "end" or words.startswith("else"):
            return text, at
        if words.startswith("range "):
            assert words == "range .Messages"
            shown = ""
            for each in scope["Messages"] if live else []:
                more, end = _run(parts, at + 1, each, live=True)
                shown += more
            _, end = _run(parts, at + 1, scope, live=False)
            assert parts[end].strip("{} ") == "end"
            text, at = text + shown, end + 1
        elif words.startswith("if "):
            more, at = _branches(parts, at, scope, live=live)
            text += more
        else:
            text += _value(words, scope) if live else ""
            at += 1
    return text, at


def _branches(parts: list[str], at: int, scope: dict[str, Any], *, live: bool) -> tuple[str, int]:
    text, taken = "", False
    while True:
        words = parts[at][2:-2].strip()
        if words == "end":
            return text, at + 1
        condition = words.removeprefix("else").strip().removeprefix("if").strip()
        true = live and not taken and (_true(condition, scope) if condition else True)
        more, at = _run(parts, at + 1, scope, live=true)
        text, taken = text + more, taken or true


def _true(condition: str, scope: dict[str, Any]) -> bool:
    if found := re.fullmatch(r'eq \.(\w+) "(\w+)"', condition):
        return bool(scope[found[1]] == found[2])
    found = re.fullmatch(r"not \.(\w+)", condition)
    assert found, f"unknown condition {condition}"
    return not scope[found[1]]


def _value(words: str, scope: dict[str, Any]) -> str:
    if found := re.fullmatch(r'"(.*)"', words):
        return found[1]
    found = re.fullmatch(r"\.(\w+)", words)
    assert found, f"unknown action {words}"
    return str(scope[found[1]])
