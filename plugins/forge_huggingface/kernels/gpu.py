"""Triton kernels: the functions of :mod:`.elementwise` on a GPU. Imported where Triton is, and not before.

All arithmetic is in 32 bit, whatever is read and written. A program takes one row, or one block of one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

# ruff: noqa: N803 - Triton's constants are written in capitals

PARTIAL = 2**21
"""Numbers of a norm's weight's gradients, each the sum over some rows, that are added up afterwards."""


@triton.jit
def _softmax_rows(
    logits,
    labels,
    bias,
    log_probs,
    entropy,
    top,
    mean,
    row_stride,
    words,
    scale,
    cap,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    label = tl.load(labels + row)
    columns = tl.arange(0, BLOCK)
    most = tl.full((), float("-inf"), tl.float32)
    before = tl.full((), float("-inf"), tl.float32)
    at = tl.full((), 0.0, tl.float32)
    total = tl.full((), 0.0, tl.float32)
    weighted = tl.full((), 0.0, tl.float32)
    summed = tl.full((), 0.0, tl.float32)
    if label >= 0:
        for start in range(0, words, BLOCK):
            column = start + columns
            there = column < words
            z = tl.load(logits + column, mask=there, other=0.0).to(tl.float32)
            if HAS_BIAS:
                z += tl.load(bias + column, mask=there, other=0.0).to(tl.float32)
            z = z * scale
            if HAS_CAP:
                z = cap * (2 * tl.sigmoid(2 * z / cap) - 1)
            summed += tl.sum(tl.where(there, z, 0.0), 0)
            at += tl.sum(tl.where(column == label, z, 0.0), 0)
            z = tl.where(there, z, float("-inf"))
            before = tl.maximum(before, tl.max(tl.where(column < label, z, float("-inf")), 0))
            higher = tl.maximum(most, tl.max(z, 0))
            shrink = tl.exp(most - higher)
            e = tl.exp(z - higher)
            total = total * shrink + tl.sum(e, 0)
            weighted = weighted * shrink + tl.sum(tl.where(there, z * e, 0.0), 0)
            most = higher
        normal = most + tl.log(total)
        tl.store(log_probs + row, at - normal)
        tl.store(entropy + row, normal - weighted / total)
        tl.store(top + row, ((at >= most) & (at > before)).to(tl.int8))
        tl.store(mean + row, summed / words)
        if WITH_GRADIENT:
            for start in range(0, words, BLOCK):
                column = start + columns
                there = column < words
                z = tl.load(logits + column, mask=there, other=0.0).to(tl.float32)
                if HAS_BIAS:
                    z += tl.load(bias + column, mask=there, other=0.0).to(tl.float32)
                z = z * scale
                chain = scale
                if HAS_CAP:
                    t = 2 * tl.sigmoid(2 * z / cap) - 1
                    z = cap * t
                    g = ((column == label).to(tl.float32) - tl.exp(z - normal)) * chain * (1 - t * t)
                else:
                    g = ((column == label).to(tl.float32) - tl.exp(z - normal)) * chain
                tl.store(logits + column, g.to(logits.dtype.element_ty), mask=there)
    else:
        tl.store(log_probs + row, 0.0)
        tl.store(entropy + row, 0.0)
        tl.store(top + row, 0)
        tl.store(mean + row, 0.0)
        if WITH_GRADIENT:
            for start in range(0, words, BLOCK):
                column = start + columns
                tl.store(logits + column, tl.zeros((BLOCK,), logits.dtype.element_ty), mask=column < words)


def softmax_rows(
    logits: torch.Tensor, labels: torch.Tensor, bias: torch.Tensor | None, scale: float, cap: float | None, into: Any
) -> None:
    """See :func:`.elementwise.softmax_rows`."""
    rows, words = logits.shape
    block = min(16384, triton.next_power_of_2(words))
    _softmax_rows[(rows,)](
        logits,
        labels,
        logits if bias is None else bias,
        into.log_probs,
        into.entropy,
        into.top,
        into.mean,
        logits.stride(0),
        words,
        float(scale),
        float(cap or 1.0),
        HAS_BIAS=bias is not None,
        HAS_CAP=cap is not None,
        WITH_GRADIENT=into.gradient,
        BLOCK=block,
        num_warps=16 if block >= 8192 else 4,
    )


@triton.jit
def _activation(gate, KIND: tl.constexpr):
    if KIND == "silu":
        active = gate * tl.sigmoid(gate)
    else:
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        active = gate * tl.sigmoid(2 * inner)  # 0.5 (1 + tanh(x)) is sigmoid(2 x)
    return active


@triton.jit
def _gated(gate, up, out, gate_stride, up_stride, width, KIND: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    g = tl.load(gate + row * gate_stride + column, mask=there, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=there, other=0.0).to(tl.float32)
    g = _activation(g, KIND).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + column, (g * u).to(out.dtype.element_ty), mask=there)


@triton.jit
def _gated_backward(
    gate,
    up,
    d,
    dgate,
    dup,
    gate_stride,
    up_stride,
    d_stride,
    dgate_stride,
    dup_stride,
    width,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    g = tl.load(gate + row * gate_stride + column, mask=there, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=there, other=0.0).to(tl.float32)
    dy = tl.load(d + row * d_stride + column, mask=there, other=0.0).to(tl.float32)
    if KIND == "silu":
        s = tl.sigmoid(g)
        active = g * s
        slope = s * (1 + g * (1 - s))
    else:
        inner = 0.7978845608028654 * (g + 0.044715 * g * g * g)
        t = 2 * tl.sigmoid(2 * inner) - 1
        active = 0.5 * g * (1 + t)
        slope = 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * g * g)
    tl.store(dgate + row * dgate_stride + column, (dy * u * slope).to(dgate.dtype.element_ty), mask=there)
    tl.store(dup + row * dup_stride + column, (dy * active).to(dup.dtype.element_ty), mask=there)


def gated(gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
    """See :func:`.elementwise.gated`."""
    rows, width = gate.shape
    out = torch.empty((rows, width), dtype=gate.dtype, device=gate.device)
    block = min(2048, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    _gated[grid](gate, up, out, gate.stride(0), up.stride(0), width, KIND=kind, BLOCK=block, num_warps=4)
    return out


def gated_backward(
    gate: torch.Tensor, up: torch.Tensor, d: torch.Tensor, kind: str, dgate: torch.Tensor, dup: torch.Tensor
) -> None:
    """See :func:`.elementwise.gated_backward`."""
    rows, width = gate.shape
    block = min(2048, triton.next_power_of_2(width))
    _gated_backward[(rows, triton.cdiv(width, block))](
        gate,
        up,
        d,
        dgate,
        dup,
        gate.stride(0),
        up.stride(0),
        d.stride(0),
        dgate.stride(0),
        dup.stride(0),
        width,
        KIND=kind,
        BLOCK=block,
        num_warps=4,
    )


@triton.jit
def _norm(x, weight, y, inverse, x_stride, width, eps, offset, ROUNDED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < width
    value = tl.load(x + row * x_stride + column, mask=there, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    r = 1 / tl.sqrt(tl.sum(value * value, 0) / width + eps)
    normal = value * r
    if ROUNDED:
        normal = normal.to(y.dtype.element_ty).to(tl.float32)
    tl.store(y + row * width + column, (normal * (offset + w)).to(y.dtype.element_ty), mask=there)
    tl.store(inverse + row, r)


@triton.jit
def _norm_backward(
    dy,
    x,
    weight,
    inverse,
    dx,
    dweight,
    dy_stride,
    x_stride,
    rows,
    width,
    offset,
    EACH: tl.constexpr,
    ROUNDED: tl.constexpr,
    TRAINED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < width
    w = offset + tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(EACH):
        row = program * EACH + step
        inside = there & (row < rows)
        value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(dy + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(inverse + row, mask=row < rows, other=0.0)
        normal = value * r
        if TRAINED:
            if ROUNDED:
                total += d * normal.to(x.dtype.element_ty).to(tl.float32)
            else:
                total += d * normal
        d = d * w
        inner = tl.sum(d * normal, 0) / width
        tl.store(dx + row * width + column, ((d - normal * inner) * r).to(dx.dtype.element_ty), mask=inside)
    if TRAINED:
        tl.store(dweight + program * width + column, total, mask=there)


def norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounded: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`.elementwise.norm`."""
    rows, width = x.shape
    y = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    inverse = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    _norm[(rows,)](
        x, weight, y, inverse, x.stride(0), width, eps, offset, ROUNDED=rounded, BLOCK=block, num_warps=_warps(block)
    )
    return y, inverse


def norm_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    offset: float,
    rounded: bool,
    trained: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See :func:`.elementwise.norm_backward`."""
    rows, width = x.shape
    dx = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(width)
    # A program sums up the weight's gradient over some rows, so that a few of them are left to be summed.
    each = triton.next_power_of_2(max(1, triton.cdiv(rows, max(1, PARTIAL // block)))) if trained else 1
    programs = triton.cdiv(rows, each)
    sums = torch.empty((programs, width), dtype=torch.float32, device=x.device) if trained else inverse
    _norm_backward[(programs,)](
        dy,
        x,
        weight,
        inverse,
        dx,
        sums,
        dy.stride(0),
        x.stride(0),
        rows,
        width,
        offset,
        EACH=each,
        ROUNDED=rounded,
        TRAINED=trained,
        BLOCK=block,
        num_warps=_warps(block),
    )
    return dx, sums.sum(0).to(weight.dtype) if trained else None


@triton.jit
def _rotate(
    x,
    out,
    cos,
    sin,
    x_batch,
    x_head,
    x_token,
    out_batch,
    out_head,
    out_token,
    cos_batch,
    cos_token,
    heads,
    tokens,
    half,
    sign,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    batch, token = place // tokens, place % tokens
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    there = (head < heads) & (column < half)
    inside = column < half
    angle = batch * cos_batch + token * cos_token + column
    c1 = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    c2 = tl.load(cos + angle + half, mask=inside, other=0.0).to(tl.float32)
    s1 = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    s2 = tl.load(sin + angle + half, mask=inside, other=0.0).to(tl.float32)
    source = x + batch * x_batch + token * x_token + head * x_head + column
    a = tl.load(source, mask=there, other=0.0).to(tl.float32)
    b = tl.load(source + half, mask=there, other=0.0).to(tl.float32)
    target = out + batch * out_batch + token * out_token + head * out_head + column
    if sign > 0:
        first = a * c1 - b * s1
        second = b * c2 + a * s2
    else:
        first = a * c1 + b * s2
        second = b * c2 - a * s1
    tl.store(target, first.to(out.dtype.element_ty), mask=there)
    tl.store(target + half, second.to(out.dtype.element_ty), mask=there)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    """See :func:`.elementwise.rotate`."""
    batch, heads, tokens, width = x.shape
    # Laid out as a projection lays it out, token by token, so that what comes after it need not copy.
    out = torch.empty((batch, tokens, heads, width), dtype=x.dtype, device=x.device).transpose(1, 2)
    _rotate[(batch * tokens,)](
        x,
        out,
        cos,
        sin,
        x.stride(0),
        x.stride(1),
        x.stride(2),
        out.stride(0),
        out.stride(1),
        out.stride(2),
        cos.stride(0) if cos.shape[0] > 1 else 0,
        cos.stride(1),
        heads,
        tokens,
        width // 2,
        sign,
        HEADS=triton.next_power_of_2(heads),
        HALF=triton.next_power_of_2(width // 2),
        num_warps=4,
    )
    return out


def _warps(block: int) -> int:
    return 16 if block >= 8192 else 8 if block >= 2048 else 4 if block >= 512 else 1
