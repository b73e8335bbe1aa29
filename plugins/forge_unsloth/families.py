"""Which families of models Unsloth knows, by the ``model_type`` of their config.

Two ways of loading are in Unsloth: six families have kernels written for them; all others go through a compiler that
rewrites transformers' own modules. The second takes anything in principle, so the list holds what Unsloth itself names.
"""

from __future__ import annotations

KERNELS = frozenset({"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""Families with kernels of their own."""

COMPILED = frozenset(
    {
        "apertus",
        "cohere",
        "cohere2",
        "gemma3_text",
        "glm4",
        "gpt_oss",
        "granite",
        "granitemoehybrid",
        "lfm2",
        "ministral3",
        "mixtral",
        "olmo2",
        "olmo3",
        "phi",
        "phi3",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_next",
        "smollm3",
        "starcoder2",
    }
)
"""Families that Unsloth's compiler is made for."""

TEXT = KERNELS | COMPILED

COMPARED = frozenset(
    {
        "gemma3_text",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Families that trained alike on Unsloth and on transformers, on a GPU, in 16 and in 4 bit: ``benchmarks/gpu.py --parts
families``, and ``1b`` and ``8b`` for Llama."""

METHODS = frozenset({"dpo", "kto", "sft"})
"""Methods that trained alike on Unsloth and on transformers: ``benchmarks/gpu.py`` and ``gpu_methods.py`` on a GPU, and
``tests/unsloth/test_parity.py`` with Unsloth's trainers on a CPU, digit for digit."""
