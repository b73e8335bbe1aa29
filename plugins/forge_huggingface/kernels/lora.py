"""LoRA (arXiv 2106.09685) as one function for all layers that read the same input.

peft computes each adapted layer as four operations, each with a pass over its result and an input of its own to keep.
Here layers with one input keep it once, their small products are one, and an adapter in 32 bit is rounded to the type
that is computed in without its input being widened. What is not the plain case (dropout, DoRA, several adapters,
adapters that are switched off or merged) is left to peft, call by call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import nn

from forge_huggingface.kernels.pieces import Piece, flat, of_tensors, piece, unflat
from forge_huggingface.kernels.products import computed_in, dense, product, summed, uncast
from forge_huggingface.kernels.rounded import ROUNDED, Ready, ready


def plain(module: Any) -> bool:
    """Whether a module is a linear layer, or peft's LoRA on one, whose result its weights alone decide."""
    base = module
    if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
        base = module.get_base_layer()
        if type(module).__name__ not in {"Linear", "Linear4bit"} or getattr(module, "fan_in_fan_out", False):
            return False
    weight = getattr(base, "weight", None)
    if not isinstance(weight, torch.Tensor) or not isinstance(base, nn.Linear) or _hooked(base) or _hooked(module):
        return False
    packed = getattr(weight, "quant_state", None) is not None
    return packed or (type(base).forward is nn.Linear.forward and weight.dim() == 2 and weight.is_floating_point())


def _hooked(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    changed = forward is not None and getattr(forward, "__func__", None) not in {_alone, _together}
    return bool(module._forward_hooks or module._forward_pre_hooks or changed)  # noqa: SLF001


@dataclass(slots=True)
class Kept:
    """What a forward pass keeps of some layers with one input, for its backward pass.

    Attributes:
        x: The input, shape (rows, inputs).
        xa: What the first matrices make of it, side by side, shape (rows, all ranks).
        a: The first matrices, one below the other, in the type of ``x``.
        weights: The frozen weights.
        bs: The second matrices, in the type of ``x``.
        scales: What each adapter is multiplied by.
    """

    x: torch.Tensor
    xa: torch.Tensor | None
    a: torch.Tensor | None
    weights: Sequence[torch.Tensor]
    bs: Sequence[torch.Tensor | None]
    scales: Sequence[float]


def project(x: torch.Tensor, pieces: Sequence[Piece], held: Ready | None) -> tuple[list[torch.Tensor], Kept]:
    """Return what layers make of their common input, and what is kept for the backward pass.

    Args:
        x: The input, shape (rows, inputs).
        pieces: The layers.
        held: Their adapters in the type of ``x``, if they are there.
    """
    dtype = x.dtype
    held = held or ready(pieces, dtype)
    a, bs = held.a, held.bs
    xa = x @ a.t() if a is not None else None
    found, start = [], 0
    for p, b in zip(pieces, bs, strict=True):
        weight = dense(p.weight, dtype)
        y = x @ weight.t() if p.bias is None else torch.addmm(p.bias.to(dtype), x, weight.t())
        del weight
        if b is not None and xa is not None:
            y.addmm_(xa[:, start : start + b.shape[1]], b.t(), alpha=p.scale)
            start += b.shape[1]
        found.append(y)
    return found, Kept(x, xa, a, [p.weight for p in pieces], bs, [p.scale for p in pieces])


def project_backward(
    kept: Kept, gradients: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype | None], *, wants_x: bool = True
) -> tuple[torch.Tensor | None, list[torch.Tensor | None], list[torch.Tensor | None]]:
    """Return the gradients over the input, over each first matrix and over each second one.

    Args:
        kept: What the forward pass kept.
        gradients: Those over the layers' results, shape (rows, outputs).
        dtypes: The types of the layers' adapters, which their gradients get.
        wants_x: Whether the gradient over the input is asked for.
    """
    dtype = kept.x.dtype
    wide = next((each for each in dtypes if each is not None), dtype)
    dx: torch.Tensor | None = None
    behind: list[torch.Tensor] = []
    of_b: list[torch.Tensor | None] = []
    start = 0
    for weight, b, scale, dy in zip(kept.weights, kept.bs, kept.scales, gradients, strict=True):
        if b is not None and kept.xa is not None:
            behind.append(product(dy, b, scale))
            of_b.append(summed(dy.t(), kept.xa[:, start : start + b.shape[1]], scale, wide))
            start += b.shape[1]
        else:
            of_b.append(None)
        if wants_x:
            whole = dense(weight, dtype)
            dx = dy @ whole if dx is None else dx.addmm_(dy, whole)
            del whole
    of_a: list[torch.Tensor | None] = [None] * len(kept.bs)
    if behind and kept.a is not None:
        g = behind[0] if len(behind) == 1 else torch.cat(behind, 1)
        whole_a = summed(g.t(), kept.x, 1.0, wide)
        parts = iter([whole_a] if len(behind) == 1 else whole_a.split([part.shape[1] for part in behind]))
        of_a = [None if b is None else next(parts) for b in kept.bs]
        if dx is not None:
            dx.addmm_(g, kept.a)
    return dx, of_a, of_b


def save(ctx: Any, *groups: Kept, beside: Sequence[torch.Tensor] = ()) -> None:
    """Keep groups, and other tensors, for a backward pass."""
    tensors: list[torch.Tensor | None] = []
    ctx.sizes = []
    for group in groups:
        tensors += [group.x, group.xa, group.a, *group.weights, *group.bs]
        ctx.sizes.append((len(group.weights), tuple(group.scales)))
    ctx.save_for_backward(*tensors, *beside)


def saved(ctx: Any) -> tuple[list[Kept], list[torch.Tensor]]:
    """Return what :func:`save` kept."""
    rest = list(ctx.saved_tensors)
    groups = []
    for count, scales in ctx.sizes:
        (x, xa, a), rest = rest[:3], rest[3:]
        groups.append(Kept(x, xa, a, rest[:count], rest[count : 2 * count], scales))
        rest = rest[2 * count :]
    return groups, rest


class Linears(torch.autograd.Function):
    """``x W' + bias + scale x A' B'`` of several layers with one input."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scales: Sequence[float], held: Ready | None, *tensors: torch.Tensor | None
    ) -> Any:
        """Compute all layers: ``tensors`` are those of :func:`flat`."""
        pieces = unflat(tensors, scales)
        dtype = computed_in(x)
        found, kept = project(x.reshape(-1, x.shape[-1]).to(dtype), pieces, held)
        save(ctx, kept)
        ctx.shape, ctx.dtype, ctx.dtypes = x.shape, x.dtype, [None if p.a is None else p.a.dtype for p in pieces]
        shaped = tuple(y.view(*x.shape[:-1], y.shape[-1]) for y in found)
        return shaped if len(shaped) > 1 else shaped[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Compute the gradients over input and adapters."""
        (kept,), _ = saved(ctx)
        rows = [g.reshape(-1, g.shape[-1]) for g in gradients]
        with uncast(rows[0]):
            dx, of_a, of_b = project_backward(kept, rows, ctx.dtypes, wants_x=ctx.needs_input_grad[0])
        dx = None if dx is None else dx.view(ctx.shape).to(ctx.dtype)
        return dx, None, None, *of_tensors(of_a, of_b, ctx.dtypes)


def linears(x: torch.Tensor, pieces: Sequence[Piece]) -> tuple[torch.Tensor, ...]:
    """Return what layers make of their common input."""
    held = ROUNDED.of(pieces, computed_in(x))
    found = Linears.apply(x, [p.scale for p in pieces], held, *flat(pieces))
    return found if isinstance(found, tuple) else (found,)


@dataclass(slots=True)
class Group:
    """Layers that read the same input, of one module.

    The first that is called computes them all, and the others find their results here; whatever is left when the module
    has done its work is dropped, for it was for nobody: a layer that reads another input, or none at all.

    Attributes:
        members: The layers.
        x: The input that the waiting results are of.
        waiting: Results, by the layer's index.
        apart: Whether the layers turned out not to be called with one input, so that each is computed alone.
    """

    members: list[Any]
    x: torch.Tensor | None = None
    waiting: dict[int, torch.Tensor] = field(default_factory=dict)
    apart: bool = False

    def call(self, index: int, x: torch.Tensor) -> torch.Tensor | None:
        """Return what a layer makes of an input; None if it is for peft to compute."""
        if self.x is x and index in self.waiting:
            found = self.waiting.pop(index)
            if not self.waiting:
                self.x = None
            return found
        own = piece(self.members[index])
        if own is None or self.apart:
            return None if own is None else linears(x, [own])[0]
        pieces = [own if other == index else piece(member) for other, member in enumerate(self.members)]
        known = [(other, p) for other, p in enumerate(pieces) if p is not None]
        results = dict(zip((other for other, _ in known), linears(x, [p for _, p in known]), strict=True))
        found = results.pop(index)
        self.x, self.waiting = (x, results) if results else (None, {})
        return found

    def end(self, module: Any, arguments: Any, result: Any) -> None:  # noqa: ARG002 - a hook's
        """Drop what is left: a hook after the module, also after one that ended early, as recomputing may."""
        if self.waiting and result is not None:
            self.apart = True
        self.x, self.waiting = None, {}


def _alone(self: Any, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    own = None if arguments or options else piece(self)
    if own is None:
        found: torch.Tensor = type(self).forward(self, x, *arguments, **options)
        return found
    return linears(x, [own])[0]


def _together(self: Any, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    group, index = self.forge_group
    found: torch.Tensor | None = None if arguments or options else group.call(index, x)
    return type(self).forward(self, x, *arguments, **options) if found is None else found


def install(model: nn.Module) -> int:
    """Give every plain layer with LoRA its faster forward. Return how many they are."""
    count = 0
    for module in model.modules():
        if hasattr(module, "lora_A") and plain(module):
            module.forward = MethodType(_alone, module)
            count += 1
    if count:
        for parent in list(model.modules()):
            for names in GROUPS:
                members = [getattr(parent, name, None) for name in names]
                found = [member for member in members if getattr(member, "forward", None) and _is_alone(member)]
                if len(found) > 1:
                    join(parent, found)
    return count


GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that read the same input."""


def _is_alone(module: Any) -> bool:
    return getattr(module.forward, "__func__", None) is _alone


def join(parent: nn.Module, members: list[Any]) -> None:
    """Have layers of a module computed as one."""
    group = Group(members)
    for index, member in enumerate(members):
        member.forge_group = (group, index)  # in a tuple, where torch takes it for no part of the module
        member.forward = MethodType(_together, member)
    parent.register_forward_hook(group.end, always_call=True)
