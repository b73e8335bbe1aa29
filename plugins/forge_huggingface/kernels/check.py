"""Whether a device's kernels compute what torch computes: tried on a few numbers before a model is given to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from forge_huggingface.kernels import elementwise
from forge_huggingface.kernels.elementwise import Rows
from forge_huggingface.kernels.sample import agree


@dataclass(frozen=True, slots=True)
class Sizes:
    """What kernels are compiled for, so that trying them compiles the very ones that the training needs.

    Attributes:
        dtype: The type of what they read.
        width: The width of the stream.
        inner: The width of the feed-forward parts.
        heads: Attention heads.
        head: The width of one.
        words: The size of the vocabulary.
        cap: What logits are bent towards.
        kind: The activation of the feed-forward parts.
    """

    dtype: torch.dtype = torch.float32
    width: int = 2048
    inner: int = 8192
    heads: int = 32
    head: int = 64
    words: int = 40007
    cap: float | None = None
    kind: str = "silu"


def sizes_of(model: Any) -> Sizes:
    """Return a model's sizes, as its config has them."""
    config = model.config.get_text_config()
    weight = getattr(model.get_input_embeddings(), "weight", None)
    found: dict[str, Any] = {"dtype": torch.bfloat16 if weight is None else weight.dtype}
    names = {
        "width": "hidden_size",
        "inner": "intermediate_size",
        "heads": "num_attention_heads",
        "words": "vocab_size",
    }
    found |= {ours: value for ours, name in names.items() if isinstance(value := getattr(config, name, None), int)}
    head = getattr(config, "head_dim", None)
    if isinstance(head, int):
        found["head"] = head
    elif "width" in found and "heads" in found:
        found["head"] = found["width"] // found["heads"]
    found["cap"] = getattr(config, "final_logit_softcapping", None)
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None) or ""
    return Sizes(**found, kind="gelu_tanh" if "gelu" in str(activation) else "silu")


def differs(part: str, model: Any, where: str) -> str | None:
    """Return why a part's kernels cannot be trusted on the device that trains, or None."""
    device = torch.device(where)
    return differs_on(part, device, sizes_of(model)) if device.type == "cuda" else None


def differs_on(part: str, device: torch.device, sizes: Sizes) -> str | None:
    """Return why a part's kernels cannot be trusted on a device, or None."""
    trial = TRIALS.get(part)
    if trial is None:
        return None
    try:
        ours = [result.cpu() for result in trial(device, sizes)]
    except Exception as error:  # noqa: BLE001 - whatever a compiler says, the libraries' own way is there
        return f"its kernels do not run on this device: {type(error).__name__}: {error}"
    for one, other in zip(ours, trial(torch.device("cpu"), sizes), strict=True):
        if not agree(one.to(sizes.dtype), other.to(sizes.dtype)):
            return f"its kernels compute something else on this device in {sizes.dtype}"
    return None


def _numbers(shape: tuple[int, ...], sizes: Sizes, device: torch.device, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) * 8 - 4).to(sizes.dtype).to(device)


def _loss(device: torch.device, sizes: Sizes) -> list[torch.Tensor]:
    logits = _numbers((5, sizes.words), sizes, device, 1)
    labels = torch.tensor([0, sizes.words - 1, -100, sizes.words // 2, 7], device=device)
    first, second, third = (torch.zeros(5, device=device) for _ in range(3))
    into = Rows(first, second, torch.zeros(5, dtype=torch.int8, device=device), third, gradient=True)
    elementwise.softmax_rows(logits, labels, None, 0.5, sizes.cap, into)
    return [into.log_probs, into.entropy, into.mean, logits]


def _swiglu(device: torch.device, sizes: Sizes) -> list[torch.Tensor]:
    gate, up, d = (_numbers((7, sizes.inner), sizes, device, seed) for seed in (1, 2, 3))
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    elementwise.gated_backward(gate, up, d, sizes.kind, dgate, dup)
    return [elementwise.gated(gate, up, sizes.kind), dgate, dup]


def _norm(device: torch.device, sizes: Sizes) -> list[torch.Tensor]:
    x, dy = (_numbers((7, sizes.width), sizes, device, seed) for seed in (1, 2))
    weight = _numbers((sizes.width,), sizes, device, 3)
    found = []
    for offset, rounded in ((0.0, True), (1.0, False)):
        y, inverse = elementwise.norm(x, weight, 1e-6, offset, rounded)
        found.append(y)
        for trained in (False, True):
            both = elementwise.norm_backward(dy, x, weight, inverse, offset, rounded=rounded, trained=trained)
            found += [each for each in both if each is not None]
    return found


def _rope(device: torch.device, sizes: Sizes) -> list[torch.Tensor]:
    x = _numbers((2, 5, sizes.heads, sizes.head // 2 * 2), sizes, device, 1).transpose(1, 2)
    cos, sin = (_numbers((1, 5, x.shape[-1]), sizes, device, seed) for seed in (2, 3))
    return [elementwise.rotate(x, cos, sin, sign) for sign in (1, -1)]


TRIALS: Mapping[str, Callable[[torch.device, Sizes], list[torch.Tensor]]] = {
    "loss": _loss,
    "swiglu": _swiglu,
    "norm": _norm,
    "rope": _rope,
}
"""For each part with kernels of its own: a function that computes with all of them."""
