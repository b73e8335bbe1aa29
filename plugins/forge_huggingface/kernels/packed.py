"""Weights that bitsandbytes packs in 4 bit (NF4, QLoRA: arXiv 2305.14314), unpacked.

bitsandbytes takes several launches and a good deal of the processor for each weight; a step unpacks every weight twice,
and where that keeps the GPU waiting, one kernel does it all. It is compared with bitsandbytes' own function on the
first weight of each kind, bit by bit, and left alone if they part.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch

TRUSTED: dict[tuple[Any, ...], bool] = {}
"""For each kind of packed weight: whether the kernel gave bitsandbytes' own numbers."""


def unpacked(weight: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return a packed weight in a type, shape (outputs, inputs); it is gone after use.

    Args:
        weight: A weight with bitsandbytes' ``quant_state``.
        dtype: The type to return.
    """
    state: Any = weight.quant_state
    kind = _kind(weight, state)
    if kind is None or state.dtype is not dtype:
        return _theirs(weight, state).to(dtype)
    trusted = TRUSTED.get(kind)
    if trusted is None:
        trusted = TRUSTED[kind] = _agree(weight, state)
    return _ours(weight, state) if trusted else _theirs(weight, state)


def _kind(weight: Any, state: Any) -> tuple[Any, ...] | None:
    """Return what one kernel serves; None for what it does not: other codes, other devices, other layouts."""
    if not weight.is_cuda or state.quant_type != "nf4" or not weight.is_contiguous():
        return None
    inner = state.state2
    if inner is not None and (inner.dtype is not torch.float32 or state.absmax.dtype is not torch.uint8):
        return None
    if inner is None and state.absmax.dtype is not torch.float32:
        return None
    tensors = [state.absmax, state.code, *((inner.absmax, inner.code, state.offset) if inner is not None else ())]
    if any(not isinstance(tensor, torch.Tensor) or tensor.device != weight.device for tensor in tensors):
        return None
    return weight.device, weight.dtype, state.dtype, state.blocksize, inner is not None and inner.blocksize


def _agree(weight: Any, state: Any) -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        same = bool(torch.equal(_ours(weight, state), _theirs(weight, state)))
        why = "it gives other numbers"
    except Exception as error:  # noqa: BLE001 - whatever a compiler says, bitsandbytes' own way is there
        same, why = False, f"{type(error).__name__}: {error}"
    if not same:
        warnings.warn(f"4-bit weights are unpacked by bitsandbytes, not by forge's kernel: {why}", stacklevel=2)
    return same


def _ours(weight: torch.Tensor, state: Any) -> torch.Tensor:
    from forge_huggingface.kernels.gpu_packed import unpack

    found: torch.Tensor = unpack(weight, state)
    return found


def _theirs(weight: torch.Tensor, state: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    found: torch.Tensor = dequantize_4bit(weight.data, state)
    return found
