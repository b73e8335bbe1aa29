"""What counts as a good answer of the quickstart: ``job.toml`` names ``card`` of this file in ``[eval] metrics``.

card     the answer is one JSON object with exactly the card's keys, in their order, and nothing else
region   the region is right: in its field if the answer is a card, named anywhere if it is not
capital  the capital is right, in the same sense
"""

from __future__ import annotations

import json
import re

CARD_KEYS = ("capital", "region", "currency")


def card(*, completions: list[str], references: list[str]) -> list[dict[str, bool]]:
    """Judge answers beside the held-out cards."""
    return [judge(said, json.loads(right)) for said, right in zip(completions, references, strict=True)]


def judge(text: str, facts: dict[str, str]) -> dict[str, bool]:
    """Judge one answer by the measures that the module's docstring names."""
    found = parse_card(text)

    def right(key: str) -> bool:
        if found is not None:
            return found[key].casefold() == facts[key].casefold()
        return re.search(rf"(?<!\w){re.escape(facts[key])}(?!\w)", text, re.IGNORECASE) is not None

    return {"card": found is not None, "region": right("region"), "capital": right("capital")}


def parse_card(text: str) -> dict[str, str] | None:
    """Return the card if the text is one and nothing else: a JSON object with the card's keys, in order, once each."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except ValueError:
        return None
    if not isinstance(pairs, tuple) or tuple(key for key, _ in pairs) != CARD_KEYS:
        return None
    found = dict(pairs)
    return found if all(isinstance(value, str) for value in found.values()) else None
