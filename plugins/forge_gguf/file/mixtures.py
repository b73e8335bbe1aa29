"""Mixtures of experts in a file: what their matrices are called, and what llama.cpp takes for granted of a family."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Values(Protocol):
    """Where a tensor's rows come from: :class:`~forge_gguf.file.weights.Weights`, or matrices in memory."""

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return some rows as float32."""
        ...


Config = dict[str, Any]

_PARTS = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}
_STACKS = {"input_linear": ("gate", "up"), "output_linear": ("down",)}
_EXPERT = re.compile(r"model\.layers\.(\d+)\.\w+\.(?:experts\.(\d+)\.)?(\w+)\.weight")


def expert_of(source: str) -> tuple[int, int | None, tuple[str, ...]] | None:
    """Return block, expert and parts of an expert's matrix, or of a stack of all of a block; None for other tensors."""
    match = _EXPERT.fullmatch(source)
    if match is None:
        return None
    if match[2] is None:
        return (int(match[1]), None, _STACKS[match[3]]) if match[3] in _STACKS else None
    return (int(match[1]), int(match[2]), (_PARTS[match[3]],)) if match[3] in _PARTS else None


@dataclass(frozen=True, slots=True)
class Expert:
    """The matrix of one expert: rows of a matrix of its own, or of one of a stack.

    Attributes:
        source: The matrix's name in the model, or the stack's.
        index: Its place in the stack; None if it is a matrix of its own.
        start: The first of its rows.
        stop: The row behind the last one.
    """

    source: str
    index: int | None
    start: int
    stop: int

    def blocks(self, weights: Values, step: int) -> Iterator[NDArray[Any]]:
        """Yield its values as float32, ``step`` rows at a time; one of a stack as a whole."""
        if self.index is not None:
            yield weights.rows(self.source, self.index, self.index + 1)[0, self.start : self.stop]
            return
        for first in range(self.start, self.stop, step):
            yield weights.rows(self.source, first, min(first + step, self.stop))


def keys_of(config: Config) -> dict[str, Any]:
    """Return the keys that a mixture has beside others, from its config."""
    keys = {"expert_count": experts_of(config), "expert_used_count": config["num_experts_per_tok"]}
    if config.get("moe_intermediate_size"):
        keys["expert_feed_forward_length"] = config["moe_intermediate_size"]
    return keys


def experts_of(config: Config) -> int:
    """Return how many experts a block has; 0 if it is no mixture."""
    return int(config.get("num_local_experts") or config.get("num_experts") or 0)


def qwen3_moe(config: Config) -> str | None:
    """Return why llama.cpp would misread a Qwen3-MoE of this config, or None."""
    if not config.get("norm_topk_prob"):
        return "llama.cpp makes the shares of a token's experts sum to one, and norm_topk_prob is false"
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        return "llama.cpp takes every block for one with experts, and this model has others"
    return "it uses sliding windows, which llama.cpp does not do here" if config.get("use_sliding_window") else None


def olmoe(config: Config) -> str | None:
    """Return why llama.cpp would misread an OLMoE of this config, or None."""
    if config.get("norm_topk_prob"):
        return "llama.cpp leaves the shares of a token's experts as they are, and norm_topk_prob is true"
    if config.get("num_key_value_heads", config["num_attention_heads"]) != config["num_attention_heads"]:
        return "llama.cpp reads as many heads of keys as of queries, and this model has fewer"
    return "it cuts queries, keys and values off (clip_qkv)" if config.get("clip_qkv") else None


def mixtral(config: Config) -> str | None:
    """Return why llama.cpp would misread a Mixtral of this config, or None."""
    return "it uses sliding windows, which llama.cpp does not do here" if config.get("sliding_window") else None
