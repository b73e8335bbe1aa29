"""Gradient checkpointing: layers that compute their activations twice instead of keeping them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def recompute(module: Any, every: int) -> None:
    """Have every so-manieth layer of a model compute its activations anew on the way back.

    Args:
        module: The model.
        every: Every how many layers one is recomputed; 1 for all.
    """
    for layer in module.layers[::every]:
        kind = type(layer)
        layer.__class__ = type(kind.__name__, (kind,), {"__call__": _twice(kind)})


def _twice(kind: Any) -> Any:
    """Return the call of a kind of layer, which keeps its inputs only."""

    def call(layer: Any, *arguments: Any, **named: Any) -> Any:
        def inner(weights: Any, *arguments: Any, **named: Any) -> Any:
            layer.update(weights)
            return kind.__call__(layer, *arguments, **named)

        return mx.checkpoint(inner)(layer.trainable_parameters(), *arguments, **named)

    return call
