"""The optimizers, as torch, transformers and bitsandbytes have them.

MLX has them too, but takes the powers of Adam's decays in 32 bit, in which 1 - 0.999 is right to four digits, and
changes the steps of Adafactor by defaults of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
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


class BySquares:
    """``rmsprop`` and ``adagrad`` with torch's defaults, as transformers' trainer makes them: by a sum of squares.

    Args:
        decay: The strength of weight decay.
        keep: What is kept of the squares so far.
        take: What is added of the new ones.
        epsilon: What is added to the root.
    """

    def __init__(self, decay: float, *, keep: float, take: float, epsilon: float) -> None:
        self.decay, self.keep, self.take, self.epsilon = decay, keep, take, epsilon
        self.state: Arrays = {}

    def step(self, weights: Arrays, gradients: Arrays, rate: float, count: int) -> Arrays:  # noqa: ARG002
        """Return the weights after a step."""
        changed = {}
        for name, plain in gradients.items():
            gradient = plain + decay_of(name, self.decay) * weights[name]
            square = self.keep * self.state.get(f"{name}.square", mx.zeros_like(plain)) + self.take * gradient**2
            self.state[f"{name}.square"] = square
            changed[name] = weights[name] - rate * gradient / (mx.sqrt(square) + self.epsilon)
        return changed


class Lion:
    """Lion (arXiv 2302.06675), as bitsandbytes 0.50 has it.

    Args:
        betas: The share of the mean in what is followed, and the decay of the mean.
        decay: The strength of weight decay, which is apart from the gradient.
    """

    def __init__(self, betas: tuple[float, float], decay: float) -> None:
        self.betas, self.decay = betas, decay
        self.state: Arrays = {}

    def step(self, weights: Arrays, gradients: Arrays, rate: float, count: int) -> Arrays:  # noqa: ARG002
        """Return the weights after a step."""
        first, second = self.betas
        changed = {}
        for name, gradient in gradients.items():
            mean = self.state.get(f"{name}.mean", mx.zeros_like(gradient))
            kept = weights[name] * (1 - rate * decay_of(name, self.decay))
            changed[name] = kept - rate * mx.sign(first * mean + (1 - first) * gradient)
            self.state[f"{name}.mean"] = second * mean + (1 - second) * gradient
        return changed


class Adafactor:
    """Adafactor (arXiv 1804.04235) at a given learning rate, as transformers' trainer makes it."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.state: Arrays = {}

    def step(self, weights: Arrays, gradients: Arrays, rate: float, count: int) -> Arrays:
        """Return the weights after a step, counted from 1."""
        share = 1.0 - count**-0.8
        changed = {}
        for name, gradient in gradients.items():
            update = gradient * mx.rsqrt(self._square(name, gradient**2 + 1e-30, share))
            update = update / mx.maximum(mx.sqrt((update**2).mean()), 1.0)
            changed[name] = weights[name] * (1 - rate * decay_of(name, self.decay)) - rate * update
        return changed

    def _square(self, name: str, square: mx.array, share: float) -> mx.array:
        """Return the running mean of the squares, of a matrix as the product of its rows' and its columns'."""

        def mean(part: str, now: mx.array) -> mx.array:
            key = f"{name}.{part}"
            self.state[key] = share * self.state.get(key, mx.zeros_like(now)) + (1 - share) * now
            return self.state[key]

        if square.ndim < 2:
            return mean("square", square)
        rows, columns = mean("rows", square.mean(axis=-1)), mean("columns", square.mean(axis=-2))
        return (rows / rows.mean(axis=-1, keepdims=True))[..., None] * columns[..., None, :]


def decay_of(name: str, decay: float) -> float:
    """Return how strongly a weight decays; biases and the weights of norms do not."""
    return 0.0 if _UNDECAYED.search(name.lower()) else decay


def optimizer_of(options: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that the keys of ``[train]`` ask for."""
    decay, betas = options["weight_decay"], (options["adam_beta1"], options["adam_beta2"])
    made: dict[str, Callable[[], Optimizer]] = {
        "adafactor": lambda: Adafactor(decay),
        "adagrad": lambda: BySquares(decay, keep=1.0, take=1.0, epsilon=1e-10),
        "lion_32bit": lambda: Lion(betas, decay),
        "rmsprop": lambda: BySquares(decay, keep=0.99, take=0.01, epsilon=1e-8),
        "sgd": lambda: Descent(decay),
    }
    name = str(options["optim"]).removeprefix("paged_")
    return made.get(name, lambda: AdamW(betas, options["adam_epsilon"], decay))()


def clipped(gradients: Arrays, longest: float) -> tuple[Arrays, mx.array]:
    """Return gradients scaled down to a length, 0 for any, and the length that they had; as torch scales them."""
    length = mx.sqrt(sum((mx.square(each.astype(mx.float32)).sum() for each in gradients.values()), mx.array(0.0)))
    if not longest:
        return gradients, length
    share = mx.minimum(longest / (length + 1e-6), 1.0)
    return {name: each * share for name, each in gradients.items()}, length
