"""What a chat template does, found by trying it once.

Templates are programs, and no two agree on how a tool call's arguments are to be given, whether reasoning is kept, or
when the head of the next answer is written. Their text does not say; what they write does.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.rendering.reasoning import END, KEYS
from forge_huggingface.rendering.spans import special
from forge_huggingface.rendering.traits import Traits
from forge_huggingface.rows import BadRow, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge_huggingface.rendering.templates import Template


_ASKED, _SAID, _AGAIN, _THOUGHT = "ASKEDQZX", "SAIDQZX", "AGAINQZX", "THOUGHTQZX"
"""Letters only, so that no template trims, escapes or splits them."""

_CALLED, _KEY, _VALUE = "calledqzx", "keyqzx", "valueqzx"

_TOOL = {
    "type": "function",
    "function": {"name": _CALLED, "description": "d", "parameters": {"type": "object", "properties": {}}},
}

_THINKING: tuple[tuple[str, Message], ...] = (
    *((key, {"role": "assistant", "content": _SAID, key: _THOUGHT}) for key in KEYS),
    ("", {"role": "assistant", "content": f"<think>\n{_THOUGHT}\n</think>\n\n{_SAID}"}),
)
"""An answer with its reasoning in a key of its own, and within the text."""

_READ = re.compile(r"\.([A-Za-z_]\w*)|['\"]([A-Za-z_]\w*)['\"]")
"""What a template may read of a message: ``message.key``, ``message['key']``, ``'key' in message``."""

_CALL_FORMS: tuple[tuple[bool, str | None], ...] = ((False, ""), (False, None), (True, ""), (True, None))


def study(template: Template, tokenizer: Any) -> Template:
    """Return the template with what it does, and what its template for conversations with tools does."""
    bare = replace(template, traits=Traits(), keep_reasoning=False, tools=None, tool_use=None)
    tool_traits = _tried(replace(bare, text=template.tool_use), tokenizer) if template.tool_use else Traits()
    return replace(template, traits=_tried(bare, tokenizer), tool_traits=tool_traits)


def _tried(plain: Template, tokenizer: Any) -> Traits:
    words = frozenset("".join(found) for found in _READ.findall(plain.text))
    before, empty = _opening(plain, tokenizer)
    unasked = _unasked(plain, tokenizer)
    traits = Traits(
        unasked=unasked,
        closing=_closing(plain, tokenizer, unasked),
        empty_reasoning=empty,
        inline=END in plain.text,
        tools=_CALLED in _written(plain, tokenizer, _user(_ASKED), _assistant(_SAID), tools=[_TOOL]),
        words=words,
        ends=_ends(plain, tokenizer),
    )
    for key, answer in _THINKING:
        last = _written(plain, tokenizer, _user(_ASKED), answer).partition(_ASKED)[2]
        if _THOUGHT not in last:
            continue
        earlier = _written(plain, tokenizer, _user(_ASKED), answer, _user(_AGAIN), _assistant(_AGAIN))
        traits = replace(traits, forgets=traits.forgets or _THOUGHT not in earlier)
        head, _, rest = last.partition(_THOUGHT)
        if before is not None and traits.reasoning is None and _SAID in rest and head.startswith(before):
            traits = replace(traits, reasoning=(head[len(before) :], rest.partition(_SAID)[0]))
        if not key:
            traits = replace(traits, inline=True)
        elif traits.reasoning_key is None:
            traits = replace(traits, reasoning_key=key)
    for as_text, silence in _CALL_FORMS:
        if _calls(plain, tokenizer, as_text, silence):
            return replace(traits, arguments_as_text=as_text, silence=silence)
    return replace(traits, calls=False)


def turn_end(template: Template, tokenizer: Any) -> int | None:
    """Return the first of the tokens that are never split behind a last answer, where the template writes one."""
    behind = _written(template, tokenizer, _user(_ASKED), _assistant(_SAID)).rpartition(_SAID)[2]
    # Some vocabularies hold line breaks among these.
    found = next((each[0] for each in special(tokenizer).finditer(behind) if each[0].strip()), None)
    return None if found is None else int(tokenizer.convert_tokens_to_ids(found))


def require_forgetting(template: Template) -> None:
    """Raise :class:`DataError` if the reasoning of earlier answers cannot be kept, or is anyhow."""
    traits = template.traits
    if template.tool_use and template.tool_traits.forgets:  # what rows without tools have may still be kept
        traits = template.tool_traits
    if not traits.forgets:
        knows = traits.inline or traits.reasoning_key
        why = "it keeps the reasoning of earlier answers by itself" if knows else "it knows no reasoning"
        raise DataError(f"keep_reasoning = true does nothing with the chat template {template.name}", why, "remove it")
    if traits.reasoning is None:
        raise DataError(
            f"keep_reasoning = true cannot be used with the chat template {template.name}",
            "it writes something else in place of the reasoning of earlier answers",
            "write one row for each answer that has reasoning, or set another chat_template",
        )


def _written(template: Template, tokenizer: Any, *messages: Message, prompt: bool = False, tools: Any = None) -> str:
    """Return what the template writes; an empty text if it refuses the messages."""
    try:
        return template.render(tokenizer, messages, prompt=prompt, tools=tools)[0]
    except BadRow:
        return ""


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str | None, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def _unasked(template: Template, tokenizer: Any) -> str:
    turns = (_user(_ASKED), _assistant(_SAID))
    text = _written(template, tokenizer, *turns)
    if not text or text != _written(template, tokenizer, *turns, prompt=True):
        return ""
    between = text.partition(_ASKED)[2].partition(_SAID)[0]
    tail = text.rpartition(_SAID)[2]
    ends = [found.end() for found in special(tokenizer).finditer(tail)] or [0]
    # The turn's own end comes first; a head of an answer is what stands before the first answer too.
    return next((tail[end:] for end in ends if tail[end:].strip() and between.endswith(tail[end:])), "")


def _ends(template: Template, tokenizer: Any) -> frozenset[str]:
    # What follows a question where nobody asks for an answer is no head of one.
    asked = _written(template, tokenizer, _user(_ASKED)).partition(_ASKED)[2]
    behind = special(tokenizer).search(asked)
    return frozenset({tokenizer.eos_token, *([behind[0]] if behind else [])})


def _closing(template: Template, tokenizer: Any, unasked: str) -> str | None:
    turns = (_user(_ASKED), _assistant(_SAID))
    _, found, last = _written(template, tokenizer, *turns).removesuffix(unasked).rpartition(_SAID)
    within = _written(template, tokenizer, *turns, _user(_AGAIN), _assistant(_THOUGHT)).partition(_SAID)[2]
    return last if found and last and within.startswith(last) else None


def _opening(template: Template, tokenizer: Any) -> tuple[str | None, str]:
    """Return what an answer within a conversation begins with, and what a last one has beyond that."""
    history = _written(template, tokenizer, _user(_ASKED), _assistant(_SAID), _user(_AGAIN), _assistant(_THOUGHT))
    last = _written(template, tokenizer, _user(_ASKED), _assistant(_SAID))
    if _SAID not in history or _SAID not in last:
        return None, ""
    before, alone = (text.partition(_ASKED)[2].partition(_SAID)[0] for text in (history, last))
    return (before, alone[len(before) :]) if alone.startswith(before) else (None, "")


def _calls(template: Template, tokenizer: Any, as_text: bool, silence: str | None) -> bool:
    arguments: Any = f'{{"{_KEY}": "{_VALUE}"}}' if as_text else {_KEY: _VALUE}
    call = {"id": "callabcde", "type": "function", "function": {"name": _CALLED, "arguments": arguments}}
    answer = {"role": "tool", "name": _CALLED, "tool_call_id": "callabcde", "content": _AGAIN}
    for turns in _conversations(_assistant(silence, tool_calls=[call]), answer):
        text = _written(template, tokenizer, *turns, tools=[_TOOL])
        if _KEY in text and _VALUE in text and f"{{'{_KEY}'" not in text and f'\\"{_KEY}' not in text:
            return True
    return False


def _conversations(call: Message, answer: Message) -> Iterator[tuple[Message, ...]]:
    yield _user(_ASKED), call, answer, _assistant(_SAID)
    yield _user(_ASKED), call  # for those that know calls and no results
