"""Which families of models Unsloth knows, by the ``model_type`` of their config.

Two ways of loading are in Unsloth: six families have kernels written for them; all others go through a compiler that
rewrites transformers' own modules. The second takes anything in principle, so the list holds what Unsloth itself names.
"""

from __future__ import annotations

KERNELS = frozenset({"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""Families with kernels of their own."""

COMPILED = frozenset({
    "apertus", "cohere", "cohere2", "gemma3_text", "glm4", "gpt_oss", "granite", "granitemoehybrid", "lfm2",
    "ministral3", "mixtral", "olmo2", "olmo3", "phi", "phi3", "qwen2_moe", "qwen3_moe", "qwen3_next", "smollm3",
    "starcoder2",
})  # fmt: skip
"""Families that Unsloth's compiler is made for."""

TEXT = KERNELS | COMPILED

COMPARED = frozenset({"llama"})
"""Families that trained alike on Unsloth and on transformers, on a GPU: ``benchmarks/gpu.py --parts families``."""

NEEDS_BFLOAT16 = frozenset({"gemma3_text", "gpt_oss", "qwen3_next"})
"""Families that overflow in float16: Unsloth would train them in float32, and not as the job says."""
