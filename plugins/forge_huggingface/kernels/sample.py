"""Trying a module on a few numbers, to know it by what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def sample(module: nn.Module, shape: tuple[int, ...], *, low: float = -2.0, high: float = 2.0) -> torch.Tensor | None:
    """Return numbers for a module to compute with, on its device and in its type, the same ones each time.

    They are drawn apart from torch's own random numbers, which belong to the training. None where the module has no
    weights in a floating-point type, or they are not there.
    """
    weights = list(module.parameters())
    if not weights or any(weight.is_meta for weight in weights):
        return None
    dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32)
    generator = torch.Generator().manual_seed(1)
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low
    return numbers.to(dtype).to(weights[0].device)


def agree(ours: torch.Tensor, theirs: object) -> bool:
    """Whether two results are one, but for rounding."""
    if not isinstance(theirs, torch.Tensor) or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    size = theirs.abs().max().float()
    close = {torch.bfloat16: 2e-2, torch.float16: 4e-3}.get(ours.dtype, 1e-4)
    return bool((ours - theirs).abs().max().float() <= close * size) and bool(size > 0)


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Have no part of a module be in training, and give back what random numbers were drawn all the same."""
    training = {each: each.training for each in module.modules()}
    module.eval()
    device = next(module.parameters()).device
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for each, before in training.items():
            each.training = before
