"""Mixtures, sizes and encoders."""

from __future__ import annotations

import numpy as np
import pytest

from forge_gguf.file.quants import FORMATS, KINDS, Shape, bits_per_weight, encode, row_bytes, tensor_format

LLAMA_8B = Shape(32, tied=False)


@pytest.mark.parametrize(
    ("name", "shape", "format_"),
    [
        ("token_embd.weight", (128256, 4096), "Q4_K"),
        ("output.weight", (128256, 4096), "Q6_K"),
        ("blk.0.attn_v.weight", (1024, 4096), "Q6_K"),
        ("blk.4.attn_v.weight", (1024, 4096), "Q4_K"),
        ("blk.6.attn_v.weight", (1024, 4096), "Q6_K"),
        ("blk.31.ffn_down.weight", (4096, 14336), "Q6_K"),
        ("blk.5.attn_q.weight", (4096, 4096), "Q4_K"),
        ("blk.5.attn_norm.weight", (4096,), "F32"),
    ],
)
def test_more_bits_go_to_what_suffers_most(name: str, shape: tuple[int, ...], format_: str) -> None:
    assert tensor_format(KINDS["q4_k_m"], name, shape, LLAMA_8B) == format_


def test_rows_that_do_not_divide_get_a_wider_type() -> None:
    small = Shape(30, tied=True)
    assert tensor_format(KINDS["q4_k_m"], "blk.5.attn_q.weight", (576, 576), small) == "Q5_0"
    assert tensor_format(KINDS["q4_k_m"], "token_embd.weight", (49152, 576), small) == "Q8_0"
    assert tensor_format(KINDS["q8_0"], "blk.5.attn_q.weight", (50, 50), small) == "F16"


def test_bits_per_weight_count_what_falls_back() -> None:
    tensors = [("blk.0.attn_q.weight", (576, 576)), ("blk.0.ffn_down.weight", (576, 1536))]
    bits, narrowed, matrices = bits_per_weight(KINDS["q4_k_s"], tensors, Shape(30, tied=True))
    assert (narrowed, matrices) == (1, 2)
    assert 5 < bits < 6


@pytest.mark.parametrize("format_", [name for name in FORMATS if name not in {"F32", "F16", "BF16"}])
def test_what_ggml_encodes_the_package_gguf_decodes(format_: str) -> None:
    import gguf

    rows = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    data = encode(rows, format_)
    assert data.shape == (64, row_bytes(format_, 512))
    back = gguf.dequantize(data, gguf.GGMLQuantizationType[format_])
    error = np.sqrt(np.square(back - rows).mean())
    assert error < {"Q8_0": 0.01, "Q6_K": 0.03, "Q5_K": 0.06, "Q5_1": 0.06, "Q5_0": 0.06}.get(format_, 0.2)


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    import torch

    rows = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    wanted = torch.from_numpy(rows).bfloat16().view(torch.uint8).numpy()
    assert np.array_equal(encode(rows, "BF16"), wanted)
