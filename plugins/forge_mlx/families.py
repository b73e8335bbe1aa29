"""The families of models whose MLX form is known to compute what transformers computes, and to have the same names.

mlx-lm knows many more. But its default for a value that ``config.json`` leaves out is not always transformers', it
leaves the window of some models' attention out, and a difference there is a model that trains to something else
without a word. So a family stands here once a test has compared the two (``tests/mlx_backend/test_families.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

FAMILIES: Mapping[str, str] = {
    "cohere": "silu",
    "cohere2": "silu",
    "ernie4_5": "silu",
    "gemma": "gelu_pytorch_tanh",
    "gemma3_text": "gelu_pytorch_tanh",
    "glm4": "silu",
    "granite": "silu",
    "helium": "silu",
    "llama": "silu",
    "ministral3": "silu",
    "mistral": "silu",
    "nemotron": "relu2",
    "olmo2": "silu",
    "olmo3": "silu",
    "phi": "gelu_new",
    "phi3": "silu",
    "qwen2": "silu",
    "qwen3": "silu",
    "seed_oss": "silu",
    "smollm3": "silu",
    "stablelm": "silu",
}
"""By transformers' names, as in ``config.json``, each with the activation that MLX's form of it has."""

WINDOWED = frozenset({"cohere2", "gemma3_text", "olmo3"})
"""Those of them whose attention looks back a window only, in MLX as in transformers."""

COUNTING = frozenset({"ministral3"})
"""Those whose attention depends on where a token is, not only on how far it is from others: they take no packs."""
