"""A Triton kernel that unpacks NF4. Imported where Triton is, and not before."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

# ruff: noqa: N803 - Triton's constants are written in capitals

BYTES = 1024
"""Packed bytes of a program: two values each."""


@triton.jit
def _unpack(
    packed,
    absmax,
    code,
    absmax2,
    code2,
    offset,
    out,
    values,
    NESTED: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE2: tl.constexpr,
    BYTES: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    there = 2 * place < values
    byte = tl.load(packed + place, mask=there, other=0).to(tl.int32)
    block = 2 * place // SIZE
    if NESTED:
        index = tl.load(absmax + block, mask=there, other=0).to(tl.int32)
        scale = tl.load(code2 + index) * tl.load(absmax2 + block // SIZE2, mask=there, other=0.0) + tl.load(offset)
    else:
        scale = tl.load(absmax + block, mask=there, other=0.0)
    first = tl.load(code + (byte >> 4)) * scale
    second = tl.load(code + (byte & 15)) * scale
    both = tl.interleave(first, second).to(out.dtype.element_ty)
    column = tl.program_id(0).to(tl.int64) * (2 * BYTES) + tl.arange(0, 2 * BYTES)
    tl.store(out + column, both, mask=column < values)


def unpack(weight: torch.Tensor, state: Any) -> torch.Tensor:
    """Return a weight packed in NF4 in the type of its state, as bitsandbytes' ``dequantize_4bit`` gives it.

    Two values lie in a byte, the first in its upper half. Each block of ``state.blocksize`` values has one scale, which
    may be packed itself: a byte that indexes ``state2.code``, times the scale of ``state2.blocksize`` of them, plus
    ``offset`` (bitsandbytes/functional.py, ``QuantState``).
    """
    inner = state.state2
    nested = inner is not None
    values = math.prod(state.shape)
    out = torch.empty(state.shape, dtype=state.dtype, device=weight.device)
    _unpack[(triton.cdiv(values, 2 * BYTES),)](
        weight.view(torch.uint8) if weight.dtype is not torch.uint8 else weight,
        state.absmax,
        state.code,
        inner.absmax if nested else state.absmax,
        inner.code if nested else state.code,
        state.offset if nested else state.absmax,
        out,
        values,
        NESTED=nested,
        SIZE=state.blocksize,
        SIZE2=inner.blocksize if nested else 1,
        BYTES=BYTES,
        num_warps=4,
        enable_fp_fusion=False,  # a product and a sum in one rounding would be other bits than bitsandbytes'
    )
    return out
