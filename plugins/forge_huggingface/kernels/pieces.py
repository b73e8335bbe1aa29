"""A linear layer with a frozen weight and its adapter, as it is to be computed now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Piece:
    """A linear layer with a frozen weight, adapted or not.

    Attributes:
        weight: Its weight, shape (outputs, inputs), or packed in 4 bit.
        bias: Its bias, shape (outputs,).
        a: LoRA's first matrix, shape (rank, inputs).
        b: LoRA's second matrix, shape (outputs, rank).
        scale: What the adapter's result is multiplied by.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    scale: float = 1.0

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """The tensors, as :class:`.lora.Linears` takes them."""
        return self.weight, self.bias, self.a, self.b


PER = 4
"""How many tensors a piece has."""


def piece(module: Any) -> Piece | None:
    """Return a linear layer as it is to be computed now; None if it is not the plain case."""
    base, a, b, scale = module, None, None, 1.0
    if (firsts := _part(module, "lora_A")) is not None:
        names = [name for name in module.active_adapters if name in firsts]
        if len(names) != 1 or module.disable_adapters or module.merged or names[0] in module.lora_variant:
            return None
        (name,) = names
        first, second = _own(firsts[name]), _own(_part(module, "lora_B")[name])
        if first.get("weight") is None or second.get("weight") is None:  # a parametrization makes them
            return None
        if first.get("bias") is not None or second.get("bias") is not None:
            return None
        if module.training and getattr(_part(module, "lora_dropout")[name], "p", 0.0):
            return None
        base, a, b, scale = module.get_base_layer(), first["weight"], second["weight"], float(module.scaling[name])
    own = _own(base)
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or weight.requires_grad or (bias is not None and bias.requires_grad):
        return None
    return Piece(weight, bias, a, b, scale)


def _part(module: nn.Module, name: str) -> Any:
    """Return the parts of a part, by name; by attribute each takes a search, which every layer does in each batch."""
    part = module._modules.get(name)  # noqa: SLF001
    return None if part is None else part._modules  # noqa: SLF001


def _own(module: nn.Module) -> Any:
    """Return a part's parameters, by name."""
    return module._parameters  # noqa: SLF001


def flat(pieces: Sequence[Piece]) -> list[torch.Tensor | None]:
    """Return the tensors of pieces, one after another."""
    return [tensor for p in pieces for tensor in p.tensors]


def unflat(tensors: Sequence[torch.Tensor | None], scales: Sequence[float]) -> list[Piece]:
    """Return the pieces of :func:`flat`."""
    fours = (tensors[PER * index : PER * index + PER] for index in range(len(scales)))
    return [Piece(weight, bias, a, b, scale) for (weight, bias, a, b), scale in zip(fours, scales, strict=True)]


def of_tensors(
    of_a: Sequence[torch.Tensor | None], of_b: Sequence[torch.Tensor | None], dtypes: Sequence[Any]
) -> list[torch.Tensor | None]:
    """Return gradients in the order of :func:`flat`, each in its parameter's type."""
    found: list[torch.Tensor | None] = []
    for a, b, dtype in zip(of_a, of_b, dtypes, strict=True):
        found += [None, None, None if a is None else a.to(dtype), None if b is None else b.to(dtype)]
    return found
