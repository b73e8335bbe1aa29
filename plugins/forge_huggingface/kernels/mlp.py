"""Feed-forward parts with a gate: ``down(activation(gate(x)) * up(x))``, the product made again in the backward pass.

A part is known by what it computes: :func:`install` tries each one on a few numbers. Where all its layers are frozen,
adapted or not, the whole part is one function that keeps its input, gate and up. Else the product is one, together with
the last layer where that is trained, which keeps gate and up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from forge_huggingface.kernels.elementwise import gated, gated_backward
from forge_huggingface.kernels.lora import Kept, plain, project, project_backward, save, saved
from forge_huggingface.kernels.pieces import Piece, flat, of_tensors, piece, unflat
from forge_huggingface.kernels.products import computed_in, uncast
from forge_huggingface.kernels.rounded import ROUNDED, Ready
from forge_huggingface.kernels.sample import agree, sample, still

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
"""Activations that there are kernels of."""


class Gated(torch.autograd.Function):
    """``activation(gate) * up``, which keeps both and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
        """Compute the product."""
        ctx.kind = kind
        ctx.save_for_backward(gate, up)
        width = gate.shape[-1]
        return gated(gate.reshape(-1, width), up.reshape(-1, width), kind).view(gate.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d: torch.Tensor) -> Any:
        """Compute the gradients over gate and up."""
        gate, up = ctx.saved_tensors
        width = gate.shape[-1]
        dgate, dup = (torch.empty(gate.shape, dtype=gate.dtype, device=gate.device) for _ in range(2))
        g, u, dy, dg, du = (x.reshape(-1, width) for x in (gate, up, d, dgate, dup))
        gated_backward(g, u, dy, ctx.kind, dg, du)
        return dgate, dup, None


class GatedDown(torch.autograd.Function):
    """``down(activation(gate) * up)``, where ``down`` is trained: its input is made again for its weight's gradient."""

    @staticmethod
    def forward(
        ctx: Any, gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, kind: str
    ) -> torch.Tensor:
        """Compute it; ``weight`` and ``bias`` are those of ``down``, in the type of ``gate`` and ``up``."""
        ctx.kind = kind
        ctx.save_for_backward(gate, up, weight)
        width = gate.shape[-1]
        product = gated(gate.reshape(-1, width), up.reshape(-1, width), kind)
        with uncast(gate):
            return functional.linear(product, weight, bias).view(*gate.shape[:-1], len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        """Compute the gradients over gate, up, and the layer's weight and bias."""
        gate, up, weight = ctx.saved_tensors
        width = gate.shape[-1]
        g, u, d = (x.reshape(-1, x.shape[-1]) for x in (gate, up, dy))
        with uncast(dy):
            dweight = d.t() @ gated(g, u, ctx.kind) if ctx.needs_input_grad[2] else None
            dbias = d.sum(0) if ctx.needs_input_grad[3] else None
            if not any(ctx.needs_input_grad[:2]):
                return None, None, dweight, dbias, None
            dgate, dup = (torch.empty(gate.shape, dtype=gate.dtype, device=gate.device) for _ in range(2))
            gated_backward(g, u, d @ weight, ctx.kind, dgate.view(-1, width), dup.view(-1, width))
        return dgate, dup, dweight, dbias, None


class GatedMlp(torch.autograd.Function):
    """The whole feed-forward part, of frozen layers with or without LoRA."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kind: str,
        scales: Sequence[float],
        held: Sequence[Ready | None],
        *tensors: torch.Tensor | None,
    ) -> Any:
        """Compute it.

        Args:
            ctx: torch's.
            x: The input.
            kind: The activation.
            scales: Of the layers' adapters.
            held: The adapters of the first layers, and of the last one, as they are computed with; None: not there.
            tensors: The layers: gate, up and down, or one for gate and up together and down.
        """
        *first, last = unflat(tensors, scales)
        dtype = computed_in(x)
        found, kept = project(x.reshape(-1, x.shape[-1]).to(dtype), first, held[0])
        gate, up = _halves(found)
        product = gated(gate, up, kind)
        (y,), second = project(product, [last], held[1])
        # The product is made again, so all that is kept of the last layer is what LoRA makes of it.
        save(ctx, kept, Kept(product.new_empty(0), second.xa, second.a, second.weights, second.bs, second.scales),
             beside=found)  # fmt: skip
        ctx.kind, ctx.shape, ctx.dtype = kind, x.shape, x.dtype
        ctx.dtypes = [None if p.a is None else p.a.dtype for p in (*first, last)]
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        """Compute the gradients over input and adapters."""
        (kept, second), found = saved(ctx)
        with uncast(dy):
            gate, up = _halves(found)
            second.x = gated(gate, up, ctx.kind)
            *dtypes, last = ctx.dtypes
            d, of_last_a, of_last_b = project_backward(second, [dy.reshape(-1, dy.shape[-1])], [last])
            assert d is not None
            del second
            gradients = [torch.empty_like(y) for y in found]
            gated_backward(gate, up, d, ctx.kind, *_halves(gradients))
            del d
            dx, of_a, of_b = project_backward(kept, gradients, dtypes, wants_x=ctx.needs_input_grad[0])
        dx = None if dx is None else dx.view(ctx.shape).to(ctx.dtype)
        of_all = of_tensors([*of_a, *of_last_a], [*of_b, *of_last_b], ctx.dtypes)
        return dx, None, None, None, *of_all


def _halves(found: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gate and up, made by two layers or by one."""
    if len(found) == 1:
        gate, up = found[0].chunk(2, dim=-1)
        return gate, up
    return found[0], found[1]


def _layers(mlp: Any) -> tuple[list[Any], Any] | None:
    """Return what makes gate and up, and what takes their product; None if it is no such part."""
    down = getattr(mlp, "down_proj", None)
    names = ("gate_up_proj",) if getattr(mlp, "gate_up_proj", None) is not None else ("gate_proj", "up_proj")
    first = [getattr(mlp, name, None) for name in names]
    if down is None or not all(isinstance(layer, nn.Module) for layer in (*first, down)):
        return None
    return first, down


def _forward(self: Any, x: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
    if rest or options:
        other: torch.Tensor = type(self).forward(self, x, *rest, **options)
        return other
    first, down = _layers(self)  # type: ignore[misc]  # install has looked
    kind, whole = self.forge_kind
    pieces = [piece(layer) for layer in (*first, down)] if whole else [None]
    if all(p is not None for p in pieces):
        known: list[Piece] = [p for p in pieces if p is not None]
        dtype = computed_in(x)
        held = ROUNDED.of(known[:-1], dtype), ROUNDED.of(known[-1:], dtype)
        found: torch.Tensor = GatedMlp.apply(x, kind, [p.scale for p in known], held, *flat(known))
        return found
    gate, up = _halves([layer(x) for layer in first])
    result: torch.Tensor
    if whole and _trained(down):
        weight, bias = (None if each is None else each.to(gate.dtype) for each in (down.weight, down.bias))
        result = GatedDown.apply(gate, up, weight, bias, kind)
    else:
        result = down(Gated.apply(gate, up, kind))
    return result


def _trained(layer: Any) -> bool:
    """Whether a plain layer's own weights are trained, and are all here."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks  # noqa: SLF001
    if hasattr(layer, "lora_A") or any(hooks) or "forward" in vars(layer):
        return False
    weight = layer.weight
    return bool(weight.requires_grad and weight.dim() == 2) and type(weight.data) is torch.Tensor


def install(model: nn.Module, *, lora: bool) -> int:
    """Give every feed-forward part with a known gate its faster forward. Return how many they are.

    Args:
        model: The model.
        lora: Whether adapted layers may be computed here too, and not by peft.
    """
    count = 0
    for module in model.modules():
        layers = _layers(module)
        if layers is None or "forward" in vars(module):
            continue
        kind = kind_of(module)
        if kind is None:
            continue
        first, down = layers
        every = (*first, down)
        adapted = any(hasattr(layer, "lora_A") for layer in every)
        whole = all(plain(layer) for layer in every) and (lora or not adapted)
        module.forge_kind = (kind, whole)
        module.forward = MethodType(_forward, module)
        count += 1
    return count


def kind_of(mlp: Any) -> str | None:
    """Return the activation of a feed-forward part, found by trying it; None if it is another, or no such part."""
    first, down = _layers(mlp)  # type: ignore[misc]  # the caller has looked
    own = next((getattr(mlp, name) for name in ("act_fn", "activation_fn", "act") if hasattr(mlp, name)), None)
    width = getattr(first[0], "in_features", None)
    if width is None or own is None:
        return None
    line = torch.linspace(-8, 8, 1001)
    with torch.no_grad(), still(mlp):
        mlp.training = True  # for dropout of its own; its layers' is peft's, and followed
        x = sample(mlp, (2, width))
        try:
            kind = next((kind for kind, known in ACTIVATIONS.items() if agree(known(line), own(line))), None)
            if x is None or kind is None:
                return None
            gate, up = _halves([layer(x) for layer in first])
            return kind if agree(down(ACTIVATIONS[kind](gate) * up), mlp(x)) else None
        except (TypeError, RuntimeError, ValueError, AttributeError):  # not a part that takes rows of numbers alone
            return None
