"""Rotary positions (arXiv 2104.09864) in one pass, where a model turns whole heads as Llama does.

Models call a function of their module. The one that takes its place is tried against it first.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from torch import nn

from forge_huggingface.kernels import seams
from forge_huggingface.kernels.elementwise import rotate
from forge_huggingface.kernels.sample import agree

NAME = "apply_rotary_pos_emb"


class Rotate(torch.autograd.Function):
    """Heads turned by their positions, of queries and of keys."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        """Turn them: see :func:`.elementwise.rotate`."""
        ctx.save_for_backward(cos, sin)
        return tuple(rotate(x if x.stride(-1) == 1 else x.contiguous(), cos, sin, 1) for x in (q, k))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Turn the gradients back."""
        cos, sin = ctx.saved_tensors
        dq, dk = (rotate(d if d.stride(-1) == 1 else d.contiguous(), cos, sin, -1) for d in gradients)
        return dq, dk, None, None


def replacement(own: Any) -> Any:
    """Return what takes the place of a model's function, and calls it where the case is another."""

    @functools.wraps(own)
    def turn(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *rest: Any, **options: Any) -> Any:
        whole = q.dim() == 4 and cos.dim() == 3 and cos.shape[-1] == q.shape[-1] == k.shape[-1]
        if rest or options or not whole or cos.requires_grad or cos.shape[1] != q.shape[2]:
            return own(q, k, cos, sin, *rest, **options)
        cos, sin = cos.contiguous(), sin.contiguous()
        return Rotate.apply(q, k, cos, sin)

    return turn


def install(model: nn.Module) -> int:
    """Replace the functions of the model's modules. Return how many attention layers call one."""
    count = 0
    known: dict[str, bool] = {}
    for module in model.modules():
        if not all(hasattr(module, name) for name in ("q_proj", "k_proj")) and not hasattr(module, "qkv_proj"):
            continue
        name = type(module).__module__
        if name not in known:
            home = sys.modules[name]
            own = seams.original(home, NAME) if hasattr(home, NAME) else None
            known[name] = own is not None and _same(own)
            if known[name]:
                seams.replace(home, NAME, replacement(own))
        count += known[name]
    return count


def _same(own: Any) -> bool:
    """Whether a function turns heads as Llama's does."""
    generator = torch.Generator().manual_seed(1)
    q, k, angles = (torch.rand(shape, generator=generator) for shape in ((2, 4, 3, 8), (2, 2, 3, 8), (1, 3, 8)))
    cos, sin = angles.cos(), angles.sin()
    try:
        theirs = own(q, k, cos, sin)
        ours = replacement(own)(q, k, cos, sin)
        return all(agree(one, other) for one, other in zip(ours, theirs, strict=True))
    except (TypeError, RuntimeError, ValueError):  # it takes something else
        return False
