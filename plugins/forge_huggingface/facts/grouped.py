"""Models whose weights MLX has rounded, as mlx-lm writes them: few bits, and a scale and an offset for each group.

``config.json`` says it under ``quantization``, with numbers for single layers beside those for all. A weight's rows are
packed into 32-bit numbers, so their shapes are not the layer's.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge_huggingface.facts.safetensors import Header

MLX = "mlx"
"""What :attr:`forge.api.ModelFacts.quantized` says of them; of other codes than scales and offsets, ``mlx-CODE``."""

_WORD = 32


def table_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a ``config.json`` says of MLX's groups, or None."""
    table = config.get("quantization")
    return table if isinstance(table, dict) and {"bits", "group_size"} <= table.keys() else None


def name_of(config: Mapping[str, Any]) -> str | None:
    """Return what facts say of how such weights are stored, or None if they are not stored so."""
    table = table_of(config)
    if table is None:
        return None
    mode = table.get("mode", "affine")
    return MLX if mode == "affine" else f"{MLX}-{mode}"


def said(config: Mapping[str, Any]) -> str:
    """Return in words how such weights are stored."""
    table = table_of(config) or {}
    layers = [each for each in table.values() if isinstance(each, dict)]
    kinds = sorted({(each.get("bits"), each.get("group_size")) for each in (table, *layers)}, key=str)
    return "stored in MLX's " + " and ".join(f"{bits} bit in groups of {size} weights" for bits, size in kinds)


def unpacked(config: Mapping[str, Any], headers: Iterable[Header]) -> tuple[Header, ...]:
    """Return headers with the shapes that the layers have, and without scales and offsets."""
    table, headers = table_of(config) or {}, tuple(headers)
    grouped = {name.removesuffix(".scales") for header in headers for name in header.shapes if name.endswith(".scales")}
    return tuple(_unpacked(header, table, grouped) for header in headers)


def _unpacked(header: Header, table: Mapping[str, Any], grouped: set[str]) -> Header:
    shapes, tensors = {}, {}
    for name, extents in header.shapes.items():
        module, _, leaf = name.rpartition(".")
        kind, count = header.tensors[name]
        if module in grouped:
            if leaf in {"scales", "biases"}:
                continue
            if leaf == "weight":
                own = table.get(module)
                bits = own["bits"] if isinstance(own, dict) and "bits" in own else table["bits"]
                extents = (*extents[:-1], extents[-1] * _WORD // bits)
                count = math.prod(extents)
        shapes[name], tensors[name] = extents, (kind, count)
    return replace(header, shapes=shapes, tensors=tensors)
