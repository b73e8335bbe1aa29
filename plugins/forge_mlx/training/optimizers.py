"""The optimizers, as torch has them.

MLX has them too, but takes the powers of Adam's decays in 32 bit, in which 1 - 0.999 is right to four digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

import mlx.core as mx

Arrays = dict[str, mx.array]

_UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names whose weights do not decay, as transformers' trainer has them."""


class Optimizer(Protocol):
    """Changes weights by their gradients; ``state`` is all that it remembers."""

    state: Arrays

    def step(self, weights: Arrays, gradients: Arrays, rate: float, count: int) -> Arrays:
        """Return the weights after a step, counted from 1."""
        ...


class AdamW:
    """AdamW (arXiv 1711.05101).

    Args:
        betas: The decays of the means of gradients and of their squares.
        epsilon: What is added to the root of the second mean.
        decay: The strength of weight decay.
    """

    def __init__(self, betas: tuple[float, float], epsilon: float, decay: float) -> None:
        self.betas, self.epsilon, self.decay = betas, epsilon, decay
        self.state: Arrays = {}

    def step(self, weights: Arrays, gradients: Arrays, rate: float, count: int) -> Arrays:
        """Return the weights after a step, counted from 1."""
        first, second = self.betas
        size, root = rate / (1 - first**count), math.sqrt(1 - second**count)
        changed = {}
        for name, gradient in gradients.items():
            mean = first * self.state.get(f"{name}.mean", mx.zeros_like(gradient)) + (1 - first) * gradient
            square = second * self.state.get(f"{name}.square", mx.zeros_like(gradient)) + (1 - second) * gradient**2
            self.state[f"{name}.mean"], self.state[f"{name}.square"] = mean, square
            kept = weights[name] * (1 - rate * decay_of(name, self.decay))
            changed[name] = kept - size * mean / (mx.sqrt(square) / root + self.epsilon)
        return changed


class Descent:
    """``sgd`` without momentum, as transformers' trainer makes it."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.state: Arrays = {}

    def step(self, weights: Arrays, gradients: Arrays, rate: float, count: int) -> Arrays:  # noqa: ARG002
        """Return the weights after a step."""
        return {
            name: weights[name] - rate * (gradient + decay_of(name, self.decay) * weights[name])
            for name, gradient in gradients.items()
        }


def decay_of(name: str, decay: float) -> float:
    """Return how strongly a weight decays; biases and the weights of norms do not."""
    return 0.0 if _UNDECAYED.search(name.lower()) else decay


def optimizer_of(options: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that the keys of ``[train]`` ask for."""
    decay = options["weight_decay"]
    if str(options["optim"]) == "sgd":
        return Descent(decay)
    return AdamW((options["adam_beta1"], options["adam_beta2"]), options["adam_epsilon"], decay)


def clipped(gradients: Arrays, longest: float) -> tuple[Arrays, mx.array]:
    """Return gradients scaled down to a length, 0 for any, and the length that they had; as torch scales them."""
    length = mx.sqrt(sum((mx.square(each.astype(mx.float32)).sum() for each in gradients.values()), mx.array(0.0)))
    if not longest:
        return gradients, length
    share = mx.minimum(longest / (length + 1e-6), 1.0)
    return {name: each * share for name, each in gradients.items()}, length
