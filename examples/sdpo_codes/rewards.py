"""The reward of the example: whether an answer is the code, and what it should have been."""

from __future__ import annotations

from typing import Any


def unlock(completions: list[str], code: list[str], digits: int = 3) -> list[dict[str, Any]]:
    """Score 1 if the first digits of an answer are those of the code; say the code where they are not."""
    return [
        {"score": 1.0, "feedback": None}
        if len(answer.strip()) == len(right) and answer.strip()[:digits] == right[:digits]
        else {"score": 0.0, "feedback": right}
        for answer, right in zip(completions, code, strict=True)
    ]
