"""Which type each tensor of a file gets, and the encoders that make it.

A GGUF "type" such as ``q4_k_m`` is a mixture: what suffers most from rounding gets more bits. The mixtures are those
of llama.cpp (``src/llama-quant.cpp``, functions ``llama_tensor_get_type_impl`` and ``tensor_type_fallback``), told
as rules; a slow test compares the bytes with its quantiser. K-quants are encoded by ggml itself, through one function
of the wheel ``libggml-python`` that takes numbers and pointers only, so that no struct can change under it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import BackendImportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of file.

    Attributes:
        name: As a job writes it.
        file_type: Its number in ``general.file_type`` (``llama_ftype`` in llama.cpp's ``include/llama.h``).
        base: The type of most matrices, by ggml's name.
        kl: Largest mean divergence from the trained model, in nats per token, that passes, and that is a failure;
            between them it is a warning.
        top1: Smallest share of positions with the trained model's best token that passes without a warning.
    """

    name: str
    file_type: int
    base: str
    kl: tuple[float, float]
    top1: float


# The limits come from measurements on three small models, the worst of which is the smallest: see docs/gguf.md.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("f32", 0, "F32", (3e-4, 1e-3), 0.97),
        Kind("f16", 1, "F16", (3e-4, 1e-3), 0.97),
        Kind("bf16", 32, "BF16", (1e-3, 5e-3), 0.96),
        Kind("q8_0", 7, "Q8_0", (0.02, 0.1), 0.94),
        Kind("q6_k", 18, "Q6_K", (0.05, 0.3), 0.92),
        Kind("q5_k_m", 17, "Q5_K", (0.15, 0.6), 0.85),
        Kind("q5_k_s", 16, "Q5_K", (0.15, 0.6), 0.85),
        Kind("q5_0", 8, "Q5_0", (0.15, 0.6), 0.85),
        Kind("q4_k_m", 15, "Q4_K", (0.15, 0.6), 0.85),
        Kind("q4_k_s", 14, "Q4_K", (0.15, 0.6), 0.85),
        Kind("q4_0", 2, "Q4_0", (0.3, 0.8), 0.8),
        Kind("q3_k_m", 12, "Q3_K", (0.5, 1.2), 0.75),
    )
}
"""The types that can be asked for, by name."""

# ggml's number, elements of a block, bytes of a block (ggml/include/ggml.h, ggml/src/ggml-common.h).
FORMATS: Mapping[str, tuple[int, int, int]] = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q4_0": (2, 32, 18), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
}  # fmt: skip
_NARROWER = {"Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What a mixture needs to know of a model.

    Attributes:
        layers: The number of layers.
        tied: Whether the output layer is the embedding.
        experts: How many experts a block has; 0 if it is no mixture.
        wide_values: Whether many heads share one value projection (llama.cpp's type "70B").
    """

    layers: int
    tied: bool
    wide_values: bool = False
    experts: int = 0


def tensor_format(kind: Kind, name: str, shape: tuple[int, ...], model: Shape) -> str:
    """Return ggml's type of one tensor.

    Args:
        kind: The type of the file.
        name: The tensor's name in the file, as in ``blk.3.attn_v.weight``.
        shape: Rows first; the last number is the length of a row.
        model: The model's shape.
    """
    if len(shape) < 2 or name.endswith("_norm.weight") or "ffn_gate_inp" in name:
        return "F32"
    if kind.base in _FLOATS:
        return kind.base
    wish = _mixture(kind, name, shape[-1], model)
    if shape[-1] % FORMATS[wish][1]:
        wish = _NARROWER.get(wish, wish)
    return wish if shape[-1] % FORMATS[wish][1] == 0 else "F16"


def _mixture(kind: Kind, name: str, width: int, model: Shape) -> str:
    """Return the type that the mixture gives a matrix, whether its rows fit or not."""
    base = kind.base
    if name == "output.weight" or (model.tied and name == "token_embd.weight"):
        return "Q8_0" if base == "Q8_0" or width % FORMATS[base][1] else "Q6_K"
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    part = name.split(".")[-2]
    if model.experts == 8 and part in {"attn_k", "attn_v"}:
        return "Q8_0"
    if part in {"attn_v", "attn_qkv", "attn_kv_b"}:
        if kind.name == "q3_k_m":
            base = "Q5_K" if layer < 2 else "Q4_K"
        elif kind.name in {"q4_k_m", "q5_k_m"} and _sensitive(layer, model.layers):
            base = "Q6_K"
        elif kind.name == "q4_k_s" and layer < 4:
            base = "Q5_K"
        return "Q5_K" if model.wide_values and base in {"Q3_K", "Q4_K"} else base
    if part in {"ffn_down", "ffn_down_exps"}:
        if kind.name == "q3_k_m":
            return "Q5_K" if layer < model.layers // 16 else "Q4_K"
        if kind.name in {"q4_k_m", "q5_k_m"} and _sensitive(layer, model.layers):
            return "Q6_K"
        if kind.name == "q4_k_s" and layer < model.layers // 8:
            return "Q5_K"
    if part == "attn_output" and model.experts == 8 and kind.name in {"q3_k_m", "q4_k_s", "q4_k_m"}:
        return "Q5_K"
    if part == "attn_output" and kind.name == "q3_k_m":
        return "Q4_K"
    return base


def _sensitive(layer: int, layers: int) -> bool:
    """Whether a layer gets more bits: the first and last eighth, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def row_bytes(format_: str, width: int) -> int:
    """Return the bytes of one row of ``width`` elements."""
    _, block, size = FORMATS[format_]
    return width // block * size


def bits_per_weight(kind: Kind, tensors: Iterable[tuple[str, tuple[int, ...]]], model: Shape) -> tuple[float, int, int]:
    """Return what a type really comes to for a model.

    Returns:
        Bits per weight over all tensors, how many quantised matrices do not get the type that the mixture gives them
        because their rows do not divide into its blocks, and how many matrices there are.
    """
    bits = weights = narrowed = matrices = 0
    for name, shape in tensors:
        count = 1
        for length in shape:
            count *= length
        format_ = tensor_format(kind, name, shape, model)
        weights += count
        bits += 8 * (count // shape[-1]) * row_bytes(format_, shape[-1])
        if len(shape) > 1 and kind.base not in _FLOATS:
            matrices += 1
            narrowed += shape[-1] % FORMATS[kind.base][1] != 0
    return bits / max(weights, 1), narrowed, matrices


@functools.cache
def library() -> Any:
    """Load ggml's base library from the wheel ``libggml-python``.

    Raises:
        BackendImportError: It is not installed or does not load, or its quantiser does not give a known answer.
    """
    what, do = "the quantiser of llama.cpp cannot be used", 'pip install "forge-train[gguf]"'
    spec = find_spec("libggml")
    if spec is None or not spec.submodule_search_locations:
        raise BackendImportError(what, "libggml-python is not installed", do)
    names = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}
    root = Path(spec.submodule_search_locations[0])
    found = sorted(root.rglob(names.get(sys.platform, "libggml-base.so")))
    if not found:
        raise BackendImportError(what, f"there is no {names.get(sys.platform, 'libggml-base.so')} in {root}", do)
    try:
        loaded = ctypes.CDLL(str(found[0]))
    except OSError as error:
        raise BackendImportError(what, str(error), do) from error
    function = loaded.ggml_quantize_chunk
    pointers = (ctypes.c_void_p, ctypes.c_void_p)
    function.argtypes = (ctypes.c_int, *pointers, *([ctypes.c_int64] * 3), ctypes.c_void_p)
    function.restype = ctypes.c_size_t
    _prove(function, what)
    return loaded


def _prove(function: Any, what: str) -> None:
    """Quantise a row whose Q8_0 form is known: 32 whole numbers up to 127 have the scale 1."""
    import numpy as np

    row = np.linspace(-127, 127, 32).round().astype(np.float32)
    out: NDArray[Any] = np.zeros(34, np.uint8)
    size = function(FORMATS["Q8_0"][0], row.ctypes.data, out.ctypes.data, 0, 1, 32, None)
    if size != 34 or out[:2].view(np.float16)[0] != 1 or (out[2:].view(np.int8) != row.astype(np.int8)).any():
        raise BackendImportError(what, "it gives another answer than ggml's Q8_0", "reinstall libggml-python")


def encode(rows: NDArray[Any], format_: str) -> NDArray[Any]:
    """Encode float32 rows of shape (rows, width); returns bytes of shape (rows, row bytes)."""
    import numpy as np

    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if format_ == "F32":
        return rows.view(np.uint8)
    if format_ == "F16":
        return rows.astype(np.float16).view(np.uint8)
    if format_ == "BF16":
        # Round to nearest, ties to even, on the bits; there is no NaN here, the writer refuses them.
        bits = rows.view(np.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16).view(np.uint8)
    count, width = rows.shape
    out: NDArray[Any] = np.empty((count, row_bytes(format_, width)), np.uint8)
    size = library().ggml_quantize_chunk(FORMATS[format_][0], rows.ctypes.data, out.ctypes.data, 0, count, width, None)
    if size != out.nbytes:
        raise BackendImportError("the quantiser of llama.cpp cannot be used", f"{size} bytes instead of {out.nbytes}")
    return out


def encoded(blocks: Iterable[NDArray[Any]], format_: str, pool: ThreadPoolExecutor, ahead: int) -> Iterator[Any]:
    """Encode blocks of rows side by side and yield them in order; ``ahead`` of them are in memory at most."""
    waiting: list[Any] = []
    for block in blocks:
        waiting.append(pool.submit(encode, block, format_))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
