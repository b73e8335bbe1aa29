"""What ``[adapter] target_modules`` says: names of modules as they end, or a regular expression, as in peft."""

from __future__ import annotations

import re

PLACES = (
    "model.layers",
    "model.language_model.layers",
    "language_model.model.layers",
    "transformer.h",
    "gpt_neox.layers",
)
"""Where models have their repeated blocks."""

BLOCKS = ("self_attn", "mlp", "attn", "attention", "self_attention", "mixer", "block_sparse_moe", "feed_forward")
"""What models call the parts of a block."""


def is_pattern(text: str) -> bool:
    r"""Whether a text is a regular expression, which peft matches with whole names, and not a name itself.

    >>> is_pattern("q_proj"), is_pattern("self_attn.q_proj"), is_pattern(r".*layers\.[01]\..*q_proj")
    (False, False, True)
    """
    return re.fullmatch(r"[\w.-]+", text) is None


def fits(targets: str | list[str], module: str) -> bool:
    """Whether targets reach a module of this full name, as peft matches."""
    if isinstance(targets, str) and is_pattern(targets):
        return re.fullmatch(targets, module) is not None
    names = [targets] if isinstance(targets, str) else targets
    return any(module == name or module.endswith(f".{name}") for name in names)


def share(pattern: str, leaf: str, layers: int) -> float:
    """Return in what share of the layers a pattern reaches modules of a name, where only their last names are known."""
    reached = sum(
        any(re.fullmatch(pattern, f"{place}.{layer}.{block}.{leaf}") for place in PLACES for block in BLOCKS)
        for layer in range(layers)
    )
    return reached / layers if layers else 0.0
