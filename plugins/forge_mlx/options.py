"""The keys that ``format = "mlx"`` adds to ``[[export]]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from forge.api import Mistake, Table


class MLXOptions(Table):
    """What an export for mlx-lm is asked for."""

    parts: Literal["fused", "adapter"] = Field(
        "fused", description="`fused` is one whole model; `adapter` is mlx-lm's adapter, and needs the base beside it."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Type of the weights that are written; `auto` takes the base model's own."
    )
    bits: Literal[4, 8] | None = Field(None, description="Quantise to so many bits, in MLX's groups.")
    group_size: Literal[32, 64, 128] = Field(64, description="Weights of a group, which have a scale in common.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys contradict each other in."""
        named = self.model_fields_set
        if "group_size" in named and self.bits is None:
            yield Mistake(
                "group_size has no effect without bits; write bits = 4, or remove it", ("group_size",), by="bits"
            )
        for key in sorted(named & {"dtype", "bits"}) if self.parts == "adapter" else ():
            yield Mistake(f'{key} is for a whole model; remove it, or parts = "adapter"', (key,), by="parts")
