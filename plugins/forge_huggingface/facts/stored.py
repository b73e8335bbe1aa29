"""How many bits a weight takes in a format that weights are stored in, as the ``quantization_config`` tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DOUBLE = 8 / 64 * (1 + 4 / 256)
"""Bits of a weight's share of its scales under bitsandbytes' double quantisation (QLoRA, arXiv 2305.14314)."""


def bits_of(quantization: Mapping[str, Any]) -> float | None:
    """Return the bits of a weight of a quantised layer, with its share of scales; None if they are not told.

    >>> bits_of({"quant_method": "awq", "bits": 4, "group_size": 128})
    4.15625
    >>> bits_of({"quant_method": "bitsandbytes", "load_in_8bit": True})
    8.0
    """
    method = quantization.get("quant_method")
    if method == "bitsandbytes":
        if quantization.get("load_in_8bit", quantization.get("_load_in_8bit")):
            return 8.0
        return 4 + (DOUBLE if quantization.get("bnb_4bit_use_double_quant") else 32 / 64)
    if method == "mxfp4":
        return 4 + 8 / 32
    if method in {"fp8", "eetq"}:
        return 8.0
    if method == "compressed-tensors":
        groups = quantization.get("config_groups")
        group = next(iter(groups.values()), None) if isinstance(groups, dict) else None
        inner = group.get("weights") if isinstance(group, dict) else None
        return _grouped(inner if isinstance(inner, dict) else {}, zeros=False)
    if method == "hqq":
        inner = quantization.get("quant_config")
        inner = inner.get("weight_quant_params") if isinstance(inner, dict) else None
        return _grouped(inner if isinstance(inner, dict) else {}, zeros=True)
    if method in {"gptq", "awq", "sinq"}:
        return _grouped(quantization, zeros=True)
    word = quantization.get("weights") or quantization.get("quant_type")  # quanto, torchao
    found = re.search(r"(?:int|float)_?(\d)", word) if isinstance(word, str) else None
    return float(found[1]) if found else None


def _grouped(values: Mapping[str, Any], *, zeros: bool) -> float | None:
    """Return bits with a 16-bit scale for each group, and a zero point where there is one."""
    bits = next((values[name] for name in ("bits", "w_bit", "nbits", "num_bits") if _counts(values.get(name))), None)
    size = next((values[name] for name in ("group_size", "q_group_size") if _counts(values.get(name))), None)
    if bits is None or bits > 16:
        return None
    return float(bits + ((16 + bits * zeros) / size if size else 0))


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
