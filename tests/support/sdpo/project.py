"""A project whose job has SDPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.projects import Project

REWARD = '''
def even(completions, completion_ids, answer):
    """1 for an answer of an even number of tokens."""
    return [float(len(ids) % 2 == 0) for ids in completion_ids]


def told(completions, completion_ids, answer):
    """The same, and it says what is wrong."""
    return [
        {"score": float(len(ids) % 2 == 0), "feedback": f"Say {right} evenly." if len(ids) % 2 else None}
        for ids, right in zip(completion_ids, answer)
    ]


def always(completions):
    """Never content."""
    return [{"score": 0.0, "feedback": "No."} for _ in completions]
'''

TRAIN: dict[str, Any] = {
    "method": "sdpo",
    "reward": [{"use": "./rewards.py:even"}],
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_completion_length": 12,
}


class SdpoProject(Project):
    """A project with prompts and a reward; ``told`` is in a file of its own where it is wanted."""

    def write(self, **changes: Any) -> Path:
        words = ["Paris", "the sea", "five", "green", "morning", "Tokyo", "the wind", "a colour"]
        rows = [{"prompt": [{"role": "user", "content": f"Say {word}."}], "answer": word} for word in words]
        (self.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        plain, _, telling = REWARD.partition("\n\n\n")
        (self.folder / "hidden.py").write_text("from telling import always as function\n")
        (self.folder / "rewards.py").write_text(plain)
        (self.folder / "telling.py").write_text(telling)
        return super().write(**{**changes, "train": {**TRAIN, **changes.get("train", {})}})
