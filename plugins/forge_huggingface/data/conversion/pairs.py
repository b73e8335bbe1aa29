"""Rows of two answers: the prompt found, whatever column or list it stands in, and the answers put behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_huggingface.data.conversion.columns import blank, nothing
from forge_huggingface.data.conversion.messages import Turns, lone, turns_of, written_messages
from forge_huggingface.rows import BadRow, Completion, Pair, parting, text_of

if TYPE_CHECKING:
    from forge_huggingface.data.conversion.parts import Parts

_SIDES = ("chosen", "rejected")
_LARGEST = 3e38  # what a number of 32 bits holds


def pair_of(parts: Parts, raw: Mapping[str, Any]) -> Pair:
    """Turn a row with a better and a worse answer into a pair.

    Raises:
        BadRow: It is none.
    """
    margin = parts.columns.get(raw, "margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
        raise BadRow("has a margin that is not a number", f"it is a {type(margin).__name__}")
    if margin is not None and not -_LARGEST <= margin <= _LARGEST:  # of NaN and infinity too
        raise BadRow("has a margin that no loss can be made of", "it is infinite, no number, or beyond 32 bits")
    margin = None if margin is None else float(margin)
    if not parts.columns.find(raw, "chosen") and (value := parts.columns.get(raw, "rejected_response")) is not None:
        chosen = parts.messages(raw, "messages")
        if chosen.last != "assistant":
            raise BadRow(
                "does not end with an assistant turn", f"its last turn is by {chosen.last}", "remove that turn"
            )
        start = len(chosen) - 1
        column = parts.columns.called(raw, "rejected_response")
        return _joined(parts, raw, chosen.until(start), [chosen.since(start), _side(parts, value, column)], margin)
    cells = _cells(parts, raw)
    texts = [cell for cell in cells if isinstance(cell, str)]
    if len(texts) == 1:
        raise BadRow("mixes a string and messages", "chosen and rejected must both be strings or both messages")
    if texts:
        return _of_texts(parts, raw, texts[0], texts[1], margin)
    sides = [cell for cell in cells if isinstance(cell, Turns)]
    if all(side.first == "assistant" for side in sides) and (prompt := _prompt(parts, raw)) is not None:
        return _joined(parts, raw, prompt, sides, margin)
    return _of_conversations(parts, raw, sides, margin)


def _cells(parts: Parts, raw: Mapping[str, Any]) -> list[str | Turns]:
    """Return both answers. One that is a JSON object as text is a message only beside messages."""
    columns = [parts.columns.called(raw, side) for side in _SIDES]
    chosen, rejected = lone(raw.get(columns[0])), lone(raw.get(columns[1]))
    alone = True
    if chosen and rejected:
        alone = _has_messages(parts, raw)
    elif chosen or rejected:
        alone = isinstance(_cell(parts, raw, _SIDES[chosen], columns[chosen], alone=True), Turns)
    return [_cell(parts, raw, _SIDES[at], columns[at], alone=alone) for at in (0, 1)]


def _has_messages(parts: Parts, raw: Mapping[str, Any]) -> bool:
    """Tell whether the prompt of a row is messages."""
    if (column := parts.columns.find(raw, "prompt")) is not None:
        return not isinstance(written_messages(raw[column], parts.speech), str)
    return parts.columns.find(raw, "messages", parts.is_messages) is not None


def _cell(parts: Parts, raw: Mapping[str, Any], name: str, called: str, *, alone: bool) -> str | Turns:
    value = raw.get(called)
    if value is None or (isinstance(value, str) and blank(value)):
        raise nothing(raw, called)
    column = parts.columns.find(raw, name) or name
    found = written_messages(value, parts.speech, alone=alone)
    return found if isinstance(found, str) else turns_of(found, column, parts.speech)


def _side(parts: Parts, value: Any, column: str) -> Turns:
    found = written_messages(value, parts.speech)
    return Turns.said("assistant", found) if isinstance(found, str) else turns_of(found, column, parts.speech)


def _prompt(parts: Parts, raw: Mapping[str, Any]) -> Turns | None:
    """Return the prompt of a row whose answers do not hold it, as messages; None if it has none."""
    if (column := parts.columns.find(raw, "prompt")) is not None:
        found = written_messages(raw[column], parts.speech)
        if not isinstance(found, str):
            return turns_of(found, column, parts.speech)
        return parts.asked_by(raw, found)
    if parts.columns.find(raw, "messages", parts.is_messages) is not None:
        return parts.messages(raw, "messages")
    question = parts.question(raw)
    return None if question is None else parts.asked_by(raw, question)


def _of_texts(parts: Parts, raw: Mapping[str, Any], chosen: str, rejected: str, margin: float | None) -> Pair:
    images = parts.images(raw)
    column = parts.columns.find(raw, "prompt")
    prompt = None if column is None else written_messages(raw[column], parts.speech)
    if isinstance(prompt, str) and not images:
        return Pair(Completion(prompt, chosen), Completion(prompt, rejected), margin)
    turns = _prompt(parts, raw)
    if turns is not None:  # plain text has no place for an image or a question; the model's template does
        return _joined(parts, raw, turns, [Turns.said("assistant", text) for text in (chosen, rejected)], margin)
    start = _shared(chosen, rejected)
    if not start and (other := parts.other_text(raw)):
        raise BadRow(
            "has no prompt",
            f"chosen and rejected share no beginning, and {other!r} is not known to be one",
            f'say which column it is: [data] columns = {{ prompt = "{other}" }}, or question for a chat template',
        )
    return Pair(Completion(chosen[:start], chosen[start:]), Completion(rejected[:start], rejected[start:]), margin)


def _joined(parts: Parts, raw: Mapping[str, Any], prompt: Turns, answers: list[Turns], margin: float | None) -> Pair:
    """Return the pair of two answers to a prompt, which may stand in the answers as well."""
    sides = []
    for answer in answers:
        said, start = parts.follow(prompt, answer)
        whole = parts.with_system(raw, said)
        sides.append(parts.conversation(raw, whole, start + len(whole) - len(said), turns=False))
    return Pair(sides[0], sides[1], margin)


def _of_conversations(parts: Parts, raw: Mapping[str, Any], sides: list[Turns], margin: float | None) -> Pair:
    """Return the pair of two conversations that begin alike, with the prompt beside them or not."""
    column = parts.columns.find(raw, "prompt")
    prompt = None if column is None else written_messages(raw[column], parts.speech)
    if prompt is not None and not isinstance(prompt, str):
        return _joined(parts, raw, turns_of(prompt, column or "prompt", parts.speech), sides, margin)
    sides = [parts.with_system(raw, side) for side in sides]
    start = parting(sides[0].messages, sides[1].messages)
    if any(start >= len(side) for side in sides):
        raise BadRow("has the same answer as chosen and as rejected", "there is nothing to prefer")
    asked = [text_of(each["content"]).strip() for each in sides[0].messages[:start] if each["role"] == "user"]
    if isinstance(prompt, str) and prompt.strip() not in asked:
        raise BadRow(
            f"has a text in {column!r} that is not what chosen and rejected begin with",
            "both are conversations, whose shared beginning is the prompt",
            "take the column out, or the questions out of chosen and rejected",
        )
    if not asked:
        what = "chosen and rejected do not begin with the same question"
        raise BadRow("has no prompt", what, "give the prompt in a column of its own, prompt or question")
    both = [parts.conversation(raw, side, start, turns=False) for side in sides]
    return Pair(both[0], both[1], margin)


def _shared(first: str, second: str) -> int:
    """Return where two texts part, without a space before it: a prompt that both begin with, as TRL takes it."""
    part = parting(first, second)
    if part == min(len(first), len(second)):
        raise BadRow(
            "has an answer that is the beginning of the other",
            "the prompt cannot be told from it",
            "give the prompt in a column of its own",
        )
    return part - 1 if part and first[part - 1] == " " else part
