"""What data sets call a speaker, the keys of a message, and whether a message is in the loss.

Here, and only here, these names are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from forge.api import Source

ROLES: Mapping[str, str] = {
    "system": "system",
    "system_prompt": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool_calls": "assistant",
    "tool": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Names of speakers in data sets, and the role that each means."""

CALLS = frozenset({"function_call", "tool_call", "tool_calls"})
"""Speakers whose text is a call of tools, as JSON."""

REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
"""Keys of a message that hold what was thought before the answer."""

IN_LOSS = ("weight", "train", "training", "trainable", "loss", "loss_mask")
"""Keys of a message that say that it is in the loss."""

OUT_OF_LOSS = ("masked",)
"""Keys of a message that say that it is not."""


class Speech:
    """How the messages of a source are written.

    Args:
        source: The source, whose job may name speakers and keys of its own.

    Attributes:
        styles: The keys for a message's speaker and text, by the format that has them.
        renamed: What a message's key is called, and forge's key.
    """

    def __init__(self, source: Source) -> None:
        keys: dict[str, str] = dict(source.message_keys.items())
        self.styles = {
            "messages": (keys.get("role", "role"), keys.get("content", "content")),
            "sharegpt": (keys.get("role", "from"), keys.get("content", "value")),
        }
        self.renamed = {keys[name]: name for name in ("reasoning_content", "tool_calls") if name in keys}
        self._roles: dict[str, str] = {**ROLES, **source.roles}
        self._calls = CALLS - source.roles.keys()

    def style(self, first: Any) -> tuple[str, str]:
        """Return the keys for a message's speaker and text, by the first message of a list."""
        if isinstance(first, Mapping):
            for style in self.styles.values():
                if style[0] in first:
                    return style
        return self.styles["messages"]

    def knows(self, speaker: Any) -> bool:
        """Tell whether a speaker is a known one."""
        return isinstance(speaker, str) and (speaker in self._roles or speaker.lower() in self._roles)

    def role(self, speaker: Any, number: int) -> tuple[str, bool]:
        """Return the role that a speaker has, and whether the message is a call.

        Raises:
            BadRow: Nobody knows the speaker.
        """
        if isinstance(speaker, str):
            for name in (speaker, speaker.strip().lower()):
                if role := self._roles.get(name):
                    return role, name in self._calls
        raise BadRow(
            f"has the unknown role {speaker!r}",
            f"message {number}",
            f'known are {", ".join(self._roles)}; name others: [data] roles = {{ {speaker} = "user" }}',
        )


def in_loss(key: str, value: Any, number: int) -> bool:
    """Return what a message's flag says: whether the message is in the loss.

    Raises:
        BadRow: The flag is neither yes nor no.
    """
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise BadRow(
            f"has a message whose {key!r} is {value!r}",
            f"message {number}; only 0 and 1, or false and true, say whether it is in the loss",
            "write one of them, or leave the key out",
        )
    return bool(value) != (key in OUT_OF_LOSS)
