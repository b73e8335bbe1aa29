"""Whether a device's kernels compute what torch computes: tried on a few numbers before a model is given to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from forge_huggingface.kernels import elementwise
from forge_huggingface.kernels.elementwise import Rows
from forge_huggingface.kernels.sample import agree


def differs(part: str, model: Any) -> str | None:
    """Return why a part's kernels cannot be trusted on the model's device, or None."""
    weight = next(model.parameters())
    trial = TRIALS.get(part)
    if trial is None or not weight.is_cuda:
        return None
    for dtype in (torch.float32, torch.bfloat16) if torch.cuda.is_bf16_supported() else (torch.float32, torch.float16):
        try:
            ours = [result.cpu() for result in trial(weight.device, dtype)]
        except Exception as error:  # noqa: BLE001 - whatever a compiler says, the libraries' own way is there
            return f"its kernels do not run on this device: {type(error).__name__}: {error}"
        for one, other in zip(ours, trial(torch.device("cpu"), dtype), strict=True):
            if not agree(one.to(dtype), other.to(dtype)):
                return f"its kernels compute something else on this device in {dtype}"
    return None


def _numbers(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) * 8 - 4).to(dtype).to(device)


def _loss(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    found = []
    for cap in (None, 30.0):
        logits = _numbers((5, 40007), dtype, device, 1)
        labels = torch.tensor([0, 40006, -100, 20000, 7], device=device)
        first, second, third = (torch.zeros(5, device=device) for _ in range(3))
        into = Rows(first, second, torch.zeros(5, dtype=torch.int8, device=device), third, gradient=True)
        elementwise.softmax_rows(logits, labels, None, 0.5, cap, into)
        found += [into.log_probs, into.entropy, logits]
    return found


def _swiglu(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    gate, up, d = (_numbers((7, 5000), dtype, device, seed) for seed in (1, 2, 3))
    found = []
    for kind in ("silu", "gelu_tanh"):
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        elementwise.gated_backward(gate, up, d, kind, dgate, dup)
        found += [elementwise.gated(gate, up, kind), dgate, dup]
    return found


def _norm(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    x, dy = (_numbers((7, 2050), dtype, device, seed) for seed in (1, 2))
    weight = _numbers((2050,), dtype, device, 3)
    found = []
    for offset, rounded in ((0.0, True), (1.0, False)):
        y, inverse = elementwise.norm(x, weight, 1e-6, offset, rounded)
        found += [y, elementwise.norm_backward(dy, x, weight, inverse, offset)]
    return found


def _rope(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    x = _numbers((2, 5, 3, 24), dtype, device, 1).transpose(1, 2)
    cos, sin = (_numbers((1, 5, 24), dtype, device, seed) for seed in (2, 3))
    return [elementwise.rotate(x, cos, sin, sign) for sign in (1, -1)]


TRIALS: Mapping[str, Callable[[torch.device, torch.dtype], list[torch.Tensor]]] = {
    "loss": _loss,
    "swiglu": _swiglu,
    "norm": _norm,
    "rope": _rope,
}
"""For each part with kernels of its own: a function that computes with all of them."""
