"""Products of matrices as a frozen layer and its adapter need them, in the type that a layer computes in."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch

from forge_huggingface.kernels.packed import unpacked

HALVES = frozenset({torch.bfloat16, torch.float16})
"""Types of 16 bits."""


def dense(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight in a type; one packed in 4 bit is unpacked, and is gone after use."""
    return weight.to(dtype) if getattr(weight, "quant_state", None) is None else unpacked(weight, dtype)


def product(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Return ``scale a b``, in one pass."""
    return torch.empty((len(a), b.shape[1]), dtype=a.dtype, device=a.device).addmm_(a, b, beta=0, alpha=scale)


@functools.cache
def widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of 16-bit matrices can be written in 32 bit there, as the sums that they are made of are."""
    if device.type != "cuda":
        return False
    tried = torch.ones((16, 16), dtype=dtype, device=device)
    try:
        found = _widened(tried, tried, 2.0)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError):  # torch has it since 2.8, not for every device
        return False
    return found.dtype is torch.float32 and bool((found == 32).all())


def _widened(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    room = torch.empty((len(a), b.shape[1]), dtype=torch.float32, device=a.device)
    found: torch.Tensor = torch.addmm(room, a, b, beta=0, alpha=scale, out_dtype=torch.float32)
    return found


def summed(a: torch.Tensor, b: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Return ``scale a b`` in a type: in 32 bit as it is summed up, where the device can, and not rounded before."""
    if dtype is torch.float32 and a.dtype in HALVES and widens(a.device, a.dtype):
        return _widened(a, b, scale)
    return product(a, b, scale).to(dtype)


def computed_in(x: torch.Tensor) -> torch.dtype:
    """Return the type that a linear layer computes in: autocast's, or its input's."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def uncast(x: torch.Tensor) -> Any:
    """Return a context in which nothing is cast: a backward pass computes in the types of its forward pass."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
