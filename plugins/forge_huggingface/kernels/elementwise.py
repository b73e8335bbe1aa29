"""What is computed value by value or row by row, each in one pass: on a GPU by :mod:`.gpu`, elsewhere by torch.

All of it takes and gives matrices of rows. Sums and functions are made in 32 bit, of 64-bit numbers in 64.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

IGNORED = -100


@functools.cache
def _triton() -> Any:
    if importlib.util.find_spec("triton") is None:
        return None
    from forge_huggingface.kernels import gpu

    return gpu


def _device(x: torch.Tensor) -> Any:
    """Return the module of kernels that takes a tensor; None if torch is to do it."""
    return _triton() if x.is_cuda and x.dtype is not torch.float64 else None


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return numbers in 32 bit, or in 64 if they are."""
    return x if x.dtype is torch.float64 else x.float()


@dataclass(slots=True)
class Rows:
    """What :func:`softmax_rows` finds, a number a row; 0 for rows without a label.

    Attributes:
        log_probs: Log-probability of the label.
        entropy: Entropy of the distribution, in nats.
        top: Whether the label is the first of the most probable words.
        mean: Mean of all logits.
        gradient: Whether the logits are to be replaced by the gradient of ``log_probs`` over them.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor
    top: torch.Tensor
    mean: torch.Tensor
    gradient: bool

    def part(self, start: int, end: int) -> Rows:
        """Return a view of some rows."""
        log_probs, entropy, top, mean = (x[start:end] for x in (self.log_probs, self.entropy, self.top, self.mean))
        return Rows(log_probs, entropy, top, mean, self.gradient)


def softmax_rows(
    logits: torch.Tensor, labels: torch.Tensor, bias: torch.Tensor | None, scale: float, cap: float | None, into: Rows
) -> None:
    """Find what a softmax says of the labels, and put the gradient in the place of the logits.

    Args:
        logits: Shape (rows, words); overwritten where ``into.gradient``.
        labels: A word for each row, or a negative number.
        bias: What is added to the logits first.
        scale: What they are multiplied by then.
        cap: What they are bent towards then: ``cap * tanh(logits / cap)``.
        into: Where the results go.
    """
    if (kernels := _device(logits)) is not None:
        kernels.softmax_rows(logits, labels, bias, scale, cap, into)
        return
    z = wide(logits)
    z = (z + wide(bias) if bias is not None else z) * scale
    bent = torch.tanh(z / cap) if cap is not None else None
    z = z if bent is None else cap * bent
    valid = labels >= 0
    index = labels.clamp(min=0).unsqueeze(1)
    log_p = z.log_softmax(-1)
    p = log_p.exp()
    zero = torch.zeros((), dtype=z.dtype, device=z.device)
    into.log_probs.copy_(torch.where(valid, log_p.gather(1, index).squeeze(1), zero))
    into.entropy.copy_(torch.where(valid, -(p * log_p).sum(-1), zero))
    into.top.copy_((z.argmax(-1) == labels) & valid)
    into.mean.copy_(torch.where(valid, z.mean(-1), zero))
    if into.gradient:
        g = p.neg_()
        g.scatter_add_(1, index, torch.ones_like(index, dtype=g.dtype))
        g = g * scale if bent is None else g * (scale * (1 - bent * bent))
        logits.copy_(g * valid.unsqueeze(1))


def gated(gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
    """Return ``activation(gate) * up``; the rows may be parts of longer ones.

    Args:
        gate: Shape (rows, width).
        up: The same shape.
        kind: ``"silu"``, or ``"gelu_tanh"``.
    """
    if (kernels := _device(gate)) is not None:
        out: torch.Tensor = kernels.gated(gate, up, kind)
        return out
    g = wide(gate)
    active = functional.silu(g) if kind == "silu" else functional.gelu(g, approximate="tanh")
    return active.to(gate.dtype) * up


def gated_backward(
    gate: torch.Tensor, up: torch.Tensor, d: torch.Tensor, kind: str, dgate: torch.Tensor, dup: torch.Tensor
) -> None:
    """Write the gradients of :func:`gated` over gate and up, from that over its result."""
    if (kernels := _device(gate)) is not None:
        kernels.gated_backward(gate, up, d, kind, dgate, dup)
        return
    g, dy = wide(gate), wide(d)
    if kind == "silu":
        s = torch.sigmoid(g)
        active, slope = g * s, s * (1 + g * (1 - s))
    else:
        c = math.sqrt(2 / math.pi)
        t = torch.tanh(c * (g + 0.044715 * g**3))
        active = 0.5 * g * (1 + t)
        slope = 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * c * (1 + 3 * 0.044715 * g * g)
    dgate.copy_(dy * wide(up) * slope)
    dup.copy_(dy * active)


def norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounded: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the root mean square norm (arXiv 1910.07467) of each row, and what each was multiplied by.

    Args:
        x: Shape (rows, width).
        weight: Shape (width,).
        eps: What is added to the mean square.
        offset: What is added to the weight: Gemma's is 1.
        rounded: Whether the normal row is rounded to the type of ``x`` before it is weighted, as in Llama.
    """
    if (kernels := _device(x)) is not None:
        found: tuple[torch.Tensor, torch.Tensor] = kernels.norm(x, weight, eps, offset, rounded)
        return found
    value = wide(x)
    inverse = torch.rsqrt(value.square().mean(-1) + eps)
    normal = value * inverse.unsqueeze(-1)
    normal = wide(normal.to(x.dtype)) if rounded else normal
    return (normal * (offset + weight.to(normal.dtype))).to(x.dtype), inverse


def norm_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    offset: float,
    *,
    rounded: bool = False,
    trained: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the gradients of :func:`norm` over its rows and, where it is trained, over its weight.

    Args:
        dy: The gradient over its result, shape (rows, width).
        x: Its rows.
        weight: Its weight, shape (width,).
        inverse: What each row was multiplied by.
        offset: What is added to the weight.
        rounded: Whether the normal row was rounded before it was weighted.
        trained: Whether the gradient over the weight is asked for.
    """
    if (kernels := _device(x)) is not None:
        found: tuple[torch.Tensor, torch.Tensor | None]
        found = kernels.norm_backward(dy, x, weight, inverse, offset, rounded, trained)
        return found
    value, r = wide(x), inverse.unsqueeze(-1)
    normal = value * r
    of_weight = None
    if trained:
        weighted = wide(normal.to(x.dtype)) if rounded else normal
        of_weight = (wide(dy) * weighted).sum(0).to(weight.dtype)
    d = wide(dy) * (offset + weight.to(value.dtype))
    return ((d - normal * (d * normal).mean(-1, keepdim=True)) * r).to(x.dtype), of_weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    """Turn each head by its position (arXiv 2104.09864), the halves of a head as pairs.

    Args:
        x: Shape (batch, heads, tokens, width); the last is laid out without gaps.
        cos: Shape (1 or batch, tokens, width), without gaps.
        sin: The same.
        sign: 1; -1 gives the gradient over ``x`` from that over the result.
    """
    if (kernels := _device(x)) is not None:
        out: torch.Tensor = kernels.rotate(x, cos, sin, sign)
        return out
    half = x.shape[-1] // 2
    value, c, s = wide(x), wide(cos).unsqueeze(1), wide(sin).unsqueeze(1)
    if sign > 0:
        turned = torch.cat((-value[..., half:], value[..., :half]), -1) * s
    else:
        turned = value * s
        turned = torch.cat((turned[..., half:], -turned[..., :half]), -1)
    return (value * c + turned).to(x.dtype)
