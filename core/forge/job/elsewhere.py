"""What other tools call the methods and adapters that forge has, and what became of those that it has not.

A job is often written from one for another tool. A word that is no method here, but is one there, is met with what to
write instead: ``did you mean "dpo"?`` for ``"ppo"`` would be a wrong answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_QLORA = "[model] load_in_4bit = true"


ADAPTERS: Mapping[str, str] = {
    "dora": 'write type = "lora" and use_dora = true',
    "full": 'write type = "none", which trains every weight',
    "qlora": f'write type = "lora", and {_QLORA}',
    "rslora": 'write type = "lora" and use_rslora = true',
}
"""``[adapter] type`` of other tools."""

ADAPTER_KEYS: Mapping[str, str] = {
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "lora_bias": "bias",
    "lora_r": "r",
    "lora_rank": "r",
    "lora_target_modules": "target_modules",
    "method": "type",
    "peft_type": "type",
    "rank": "r",
    "targets": "target_modules",
}
"""What other tools call the keys of ``[adapter]``."""


def folded(word: str) -> str:
    """Return a word as these tables write it: ``"Dr. GRPO"`` and ``"dr-grpo"`` are ``dr_grpo``."""
    return word.strip().lower().replace(". ", "_").replace("-", "_").replace(" ", "_")
