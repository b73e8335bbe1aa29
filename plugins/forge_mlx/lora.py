"""LoRA on a linear layer, with peft's names and shapes, so that files need no translation."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
from mlx import nn


class LoRALinear(nn.Module):
    """A frozen linear layer, and a trained product of two small matrices beside it (arXiv 2106.09685).

    Args:
        base: The layer.
        first: ``lora_A``, shape (rank, inputs).
        second: ``lora_B``, shape (outputs, rank).
        scale: What their product is multiplied by.
        dropout: The share of inputs that the adapter does not see in a step.
        magnitude: The lengths of the weight's rows, for DoRA (arXiv 2402.09353); None without it.
    """

    def __init__(
        self, base: Any, first: mx.array, second: mx.array, scale: float, dropout: float, magnitude: mx.array | None
    ) -> None:
        super().__init__()
        self.base = base
        self.lora_A, self.lora_B = first, second
        if magnitude is not None:
            self.lora_magnitude_vector = magnitude
        self._scale, self._dropout = scale, dropout
        self._on = True
        base.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        """Return what the layer makes of its input, the adapter's part added in 32 bit."""
        plain = self.base(x)
        if not self._on:
            return plain
        seen = x.astype(self.lora_A.dtype)
        drops = self.training and self._dropout > 0
        if drops:
            seen = mx.random.bernoulli(1 - self._dropout, seen.shape) * seen / (1 - self._dropout)
        found = self._scale * ((seen @ self.lora_A.T) @ self.lora_B.T)
        if "lora_magnitude_vector" not in self:
            return (plain + found).astype(plain.dtype)
        length = mx.stop_gradient(lengths(weight_of(self.base) + self._scale * (self.lora_B @ self.lora_A)))
        share = (self.lora_magnitude_vector / length)[None]
        bias = self.base.bias if "bias" in self.base else None
        bare = plain if bias is None else plain - bias
        # With dropout the base is seen through it, too, as peft has it.
        bare = seen @ weight_of(self.base).T if drops else bare
        return (plain + (share - 1) * bare + share * found).astype(plain.dtype)


def lengths(weight: mx.array) -> mx.array:
    """Return the length of each row of a weight."""
    return mx.sqrt((weight.astype(mx.float32) ** 2).sum(axis=1))


def weight_of(layer: Any) -> mx.array:
    """Return a layer's weight, unpacked if it is quantised."""
    if "scales" not in layer:
        return layer.weight
    return mx.dequantize(
        layer.weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode
    )


def folded(layer: LoRALinear) -> Any:
    """Return a linear layer that makes what an adapted one makes; the base must be in 32 bit, and not quantised."""
    weight = layer.base.weight + layer._scale * (layer.lora_B @ layer.lora_A)  # noqa: SLF001 - this module's own
    if "lora_magnitude_vector" in layer:
        weight = (layer.lora_magnitude_vector / lengths(weight))[:, None] * weight
    layer.base.weight = weight
    return layer.base


def adapted(module: Any) -> dict[str, LoRALinear]:
    """Return the adapted layers of a model, by name."""
    return {name: each for name, each in module.named_modules() if isinstance(each, LoRALinear)}


def switch(module: Any, on: bool) -> None:
    """Switch the adapter of a model on or off."""
    for each in adapted(module).values():
        each._on = on  # noqa: SLF001 - this module's own


def drawn(rank: int, inputs: int, outputs: int, how: bool | str) -> tuple[mx.array, mx.array]:
    """Return first weights of an adapter, drawn as peft draws them: from torch, in the same order.

    Args:
        rank: The rank.
        inputs: Of the layer.
        outputs: Of the layer.
        how: ``init_lora_weights`` of the job.
    """
    import numpy as np
    import torch

    first, second = torch.nn.Linear(inputs, rank, bias=False).weight, torch.nn.Linear(rank, outputs, bias=False).weight
    with torch.no_grad():
        if how == "gaussian":
            torch.nn.init.normal_(first, std=1 / rank)
        elif how:
            torch.nn.init.kaiming_uniform_(first, a=math.sqrt(5))
        if how:
            second.zero_()
        return tuple(mx.array(np.array(each.numpy())) for each in (first, second))
