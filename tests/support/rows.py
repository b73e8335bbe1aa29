"""Rows and settings for every method, small enough for the tests' random model."""

from __future__ import annotations

from typing import Any

WORDS = ["Paris", "the sea", "a colour", "five", "the wind", "morning", "green", "Tokyo"]


def asked(index: int) -> list[dict[str, str]]:
    """Return a question."""
    return [{"role": "user", "content": f"Write one sentence about {WORDS[index % len(WORDS)]}, number {index}."}]


def said(text: str) -> list[dict[str, str]]:
    """Return an answer."""
    return [{"role": "assistant", "content": text}]


def pairs(count: int = 12) -> list[dict[str, Any]]:
    """Return preference pairs: a short answer is better than a long one."""
    return [
        {
            "prompt": asked(index),
            "chosen": said(f"{WORDS[index % 8]} is green."),
            "rejected": said(f"{WORDS[(index + 3) % 8]} is five " * (1 + index % 3)),
        }
        for index in range(count)
    ]


def ratings(count: int = 12) -> list[dict[str, Any]]:
    """Return rated answers, half of them good."""
    return [
        {
            "prompt": asked(index),
            "completion": said(f"{WORDS[index % 8]} is {'green' if index % 2 else 'five five'}."),
            "label": bool(index % 2),
        }
        for index in range(count)
    ]


LABELS = {"cold": "the wind is cold", "count": "one two three four", "green": "a colour: green"}


def labelled(count: int = 12) -> list[dict[str, Any]]:
    """Return texts of three classes."""
    names = list(LABELS)
    return [
        {"text": f"{LABELS[names[index % 3]]} {WORDS[index % 8]} {index}", "label": names[index % 3]}
        for index in range(count)
    ]


def lists(count: int = 12) -> list[dict[str, Any]]:
    """Return texts with any number of labels."""
    rows = labelled(count)
    for index, row in enumerate(rows):
        row["label"] = [row["label"], "even"][index % 2 :] if index % 5 else []
    return rows


def numbers(count: int = 12) -> list[dict[str, Any]]:
    """Return texts with a number."""
    return [{**row, "label": index % 3 + 0.5} for index, row in enumerate(labelled(count))]


def prompts(count: int = 12) -> list[dict[str, Any]]:
    """Return prompts with a column for reward functions."""
    return [{"prompt": asked(index), "wanted": "the"} for index in range(count)]


REWARDS = '''"""Rewards for tests."""


def wanted(*, prompts, completions, wanted, **_):
    """Reward each time that a wanted text is in the answer."""
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [float(text.count(word)) for text, word in zip(texts, wanted, strict=True)]


def length(*, completions, **_):
    """Reward long answers."""
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [len(text) / 100 for text in texts]
'''

ONLINE: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "max_completion_length": 8,
    "reward": [{"use": "./rewards.py:length"}],
}
"""What a job of an online method needs on top of the tests' base job."""


METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpo": (pairs, {}),
    "kto": (ratings, {}),
    "orpo": (pairs, {}),
    "cpo": (pairs, {}),
    "reward": (pairs, {}),
    "classification": (labelled, {}),
    "grpo": (prompts, ONLINE),
    "rloo": (prompts, ONLINE),
    "distill": (prompts, {"max_completion_length": 8, "teacher_model_name_or_path": "model"}),
}
"""By method other than sft: what makes rows for it, and which arguments it wants beside."""
