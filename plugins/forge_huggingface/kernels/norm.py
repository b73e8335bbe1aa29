"""Root mean square norms (arXiv 1910.07467), in one pass each way, their weights frozen or trained.

A norm is known by what it computes: Llama's multiplies by its weight, Gemma's by one more than it.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import torch
from torch import nn

from forge_huggingface.kernels.elementwise import norm, norm_backward
from forge_huggingface.kernels.sample import agree, sample

WIDEST = 32768
"""The longest row that a kernel takes."""


class Norm(torch.autograd.Function):
    """The norm of each row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, rounded: bool) -> Any:
        """Compute it: see :func:`.elementwise.norm`."""
        # Heads are normed beside each other in memory, whichever way their axes are turned.
        turned = x.dim() == 4 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
        laid = x.transpose(1, 2) if turned else x
        rows = _dense(laid.reshape(-1, x.shape[-1]))
        y, inverse = norm(rows, weight, eps, offset, rounded)
        ctx.save_for_backward(rows, weight, inverse)
        ctx.offset, ctx.rounded, ctx.turned = offset, rounded, turned
        return y.view(laid.shape).transpose(1, 2) if turned else y.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        """Compute the gradients over the input and the weight."""
        rows, weight, inverse = ctx.saved_tensors
        laid = dy.transpose(1, 2) if ctx.turned else dy
        trained = ctx.needs_input_grad[1]
        dx, dweight = norm_backward(
            _dense(laid.reshape(rows.shape)), rows, weight, inverse, ctx.offset, rounded=ctx.rounded, trained=trained
        )
        dx = dx.view(laid.shape)
        return dx.transpose(1, 2) if ctx.turned else dx, dweight, None, None, None


def _dense(rows: torch.Tensor) -> torch.Tensor:
    """Return rows whose numbers lie beside each other, as the kernels read them."""
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _forward(self: Any, x: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
    weight = self.weight
    if rest or options or x.dtype != weight.dtype:  # some take a gate too
        found: torch.Tensor = type(self).forward(self, x, *rest, **options)
        return found
    result: torch.Tensor = Norm.apply(x, weight, *self.forge_norm)
    return result


def install(model: nn.Module) -> int:
    """Give every norm that is known its faster forward. Return how many they are."""
    count = 0
    kinds: dict[Any, tuple[float, float, bool] | None] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or len(list(module.parameters())) != 1:
            continue
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not isinstance(eps, float) or weight.is_meta or weight.shape[0] > WIDEST:
            continue
        if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001
            continue
        key = type(module), *sorted((k, v) for k, v in vars(module).items() if isinstance(v, bool | int | float | str))
        if key not in kinds:
            kinds[key] = kind_of(module, eps)
        if (kind := kinds[key]) is not None:
            module.forge_norm = kind
            module.forward = MethodType(_forward, module)
            count += 1
    return count


def kind_of(module: Any, eps: float) -> tuple[float, float, bool] | None:
    """Return epsilon, offset and whether rows are rounded before they are weighted; None if it is another norm."""
    with torch.no_grad():
        # On a CPU, where all three are exact; the weight of a new model tells Gemma's way from Llama's by itself.
        tried = copy.deepcopy(module).to("cpu", torch.float32)
        x, weight = sample(tried, (3, len(tried.weight))), sample(tried, (len(tried.weight),), low=0.5, high=1.5)
        if x is None or weight is None:
            return None
        tried.weight.copy_(weight)
        small = x * eps**0.5  # where it matters
        for offset in (0.0, 1.0):
            try:
                same = all(agree(norm(rows, weight, eps, offset, rounded=False)[0], tried(rows)) for rows in (x, small))
            except (TypeError, RuntimeError, ValueError):  # it takes more than rows
                return None
            if same:
                half = tried.to(torch.bfloat16)
                rows = x.to(torch.bfloat16)
                rounded = bool((half(rows) == norm(rows, half.weight, eps, offset, rounded=True)[0]).all())
                return eps, offset, rounded
    return None
