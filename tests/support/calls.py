"""Models that call tools: a template that a tiny tokenizer writes in few tokens, and answers written beforehand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from support.projects import Project

TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool.function | tojson }}\n{% endfor %}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

READING = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<call>",
            "close_pattern": r"</call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"</s>\s*", "content": "text"},
    },
}
"""How transformers reads an answer of that template."""

TOOLS = '''"""Tools for tests."""


def double(n: int) -> int:
    """Double a number.

    Args:
        n: The number.
    """
    return 2 * n


def broken(n: int) -> int:
    """Fail.

    Args:
        n: The number.
    """
    return n // 0


def stop(n: int) -> int:
    """End the program.

    Args:
        n: The number.
    """
    raise SystemExit(n)


async def later(n: int) -> list:
    """Return a list, later.

    Args:
        n: The number.
    """
    return [n, n]


def bare(n):
    """Say nothing of its parameter."""
    return n


def long(n: int) -> str:
    """Return much.

    Args:
        n: How much.
    """
    return "one " * n


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def reset(self, wanted: str = "", **row) -> str:
        self.count = 0
        return f" {wanted} zero"

    def add(self, n: int) -> dict:
        """Add to the count.

        Args:
            n: How much.
        """
        self.count += n
        return self.seen()

    def seen(self) -> dict:
        """Tell the count."""
        return {"count": self.count, "kind": "count"}

    def get_reward(self) -> float:
        assert self.seen()["count"] == self.count  # its own call gives what it returns
        return float(self.count)


class Silent(Counter):
    """Counts, and begins without a word."""

    def reset(self, **row) -> None:
        self.count = 0


class Failing(Counter):
    """Cannot begin."""

    def reset(self, **row) -> None:
        raise ValueError("no row")
'''


SAID = '''"""Notes the last answer, with its prompt, as the rewards get it."""

import json
import pathlib


def said(*, prompts, completions, **row):
    text = json.dumps([prompts[-1], completions[-1]])
    pathlib.Path(__file__).with_suffix(".json").write_text(text, encoding="utf-8")
    return [0.0] * len(completions)
'''


def call(name: str, **arguments: Any) -> str:
    """Return what a model writes to call a tool."""
    return f"<call>{json.dumps({'name': name, 'arguments': arguments})}</call>"


def furnish(project: Project) -> None:
    """Give a project a model that can call, and the tools."""
    tell(project.folder / "model")
    (project.folder / "tools.py").write_text(TOOLS, encoding="utf-8")
    (project.folder / "said.py").write_text(SAID, encoding="utf-8")


def tell(model: Path) -> None:
    """Have a model's tokenizer write and read calls."""
    (model / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    file = model / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "max_position_embeddings": 2048}), encoding="utf-8")
    file = model / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "response_template": READING}), encoding="utf-8")


def answer_with(patch: pytest.MonkeyPatch, *turns: str, on: Any = None) -> list[list[list[int]]]:
    """Have the model write these in turn, each answer of a batch the same; return the prompts that it was given."""
    if on is None:
        from forge_huggingface.training.recipes.rollouts import Decoding as on  # noqa: N813 - a class, as its default

    given: list[list[list[int]]] = []
    left: list[str] = []

    def write(self: Any, prompt_ids: Any, *_: Any, **named: Any) -> Any:
        given.append([list(ids) for ids in prompt_ids])
        if "has_tool_images" not in named:  # the first turn
            left[:] = turns
        text = left.pop(0)
        ids = self.processing_class(text, add_special_tokens=False)["input_ids"]
        return [[*ids, self.processing_class.eos_token_id] for _ in prompt_ids], None

    patch.setattr(on, "_generate_single_turn", write)
    return given
