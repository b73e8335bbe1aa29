"""The same bytes as llama.cpp's own tools write, where they are here.

The converter comes from a llama.cpp tree that ``FORGE_LLAMA_CPP`` names (the sdist of llama-cpp-python has one in
``vendor/llama.cpp``), the quantiser from ``llama-quantize``, or a Python with llama-cpp-python in it, that
``FORGE_LLAMA_QUANTIZE`` names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.tiny_gguf import MODELS, make

TREE = Path(os.environ.get("FORGE_LLAMA_CPP", "/nowhere"))
QUANTIZE = os.environ.get("FORGE_LLAMA_QUANTIZE")
QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart" / "model"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TREE / "convert_hf_to_gguf.py").exists(), reason="FORGE_LLAMA_CPP names no llama.cpp tree"),
]
# Sentence-piece tokenizers without tokenizer.model are what its converter cannot read, not what it writes otherwise.
ARCHITECTURES = [name for name, (*_, tokenizer) in MODELS.items() if tokenizer == "bytes"]


def file_of(folder: Path, path: Path, kind: str) -> Path:
    """Write a file with forge."""
    from transformers import AutoConfig, AutoTokenizer

    from forge_gguf.file import architectures, vocabulary, writer
    from forge_gguf.file.quants import KINDS, Shape
    from forge_gguf.file.weights import Weights

    config = AutoConfig.from_pretrained(folder).to_dict()
    weights = Weights(folder)
    tensors = architectures.tensors(config, weights)
    words = vocabulary.vocabulary(AutoTokenizer.from_pretrained(folder), config["vocab_size"]).with_pre("gpt-2")
    name = architectures.BUILTIN[config["architectures"][0]].name
    keys = writer.general(KINDS[kind], name, "test") | architectures.keys(config) | words.keys()
    shape = Shape(config["num_hidden_layers"], not any(tensor.name == "output.weight" for tensor in tensors))
    writer.write(path, keys, tensors, weights, KINDS[kind], shape)
    return path


def converted(folder: Path, path: Path, kind: str) -> Path:
    """Write a file with llama.cpp's converter, told how texts are split where its hash does not know it."""
    code = (
        "import runpy, sys; tree = sys.argv[1]; sys.path[:0] = [tree, tree + '/gguf-py']; "
        "from conversion.base import TextModel; TextModel.get_vocab_base_pre = lambda *_: 'gpt-2'; "
        "sys.argv = sys.argv[1:]; sys.argv[0] += '/convert_hf_to_gguf.py'; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(TREE), str(folder), "--outtype", kind, "--outfile", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return path


def tensors_of(path: Path) -> dict[str, Any]:
    import gguf

    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def assert_same(one: Path, other: Path) -> None:
    import numpy as np

    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    different = [
        (name, first[name].tensor_type.name, second[name].tensor_type.name)
        for name in first
        if first[name].tensor_type != second[name].tensor_type
        or not np.array_equal(first[name].data, second[name].data)
    ]
    assert different == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_f16_tensors_are_the_converters(name: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", name)
    assert_same(file_of(folder, tmp_path / "a.gguf", "f16"), converted(folder, tmp_path / "b.gguf", "f16"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_keys_that_both_write_are_the_same(name: str, tmp_path: Path) -> None:
    import gguf

    folder = make(tmp_path / "model", name)
    one, other = (
        {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
        for path in (file_of(folder, tmp_path / "a.gguf", "f16"), converted(folder, tmp_path / "b.gguf", "f16"))
    )
    different = {
        key: (one[key], other[key])
        for key in one.keys() & other.keys()
        if one[key] != other[key] and not key.startswith(("GGUF.", "general.name"))
    }
    assert different == {}


@pytest.mark.skipif(not (QUICKSTART / "model.safetensors").exists(), reason="prepare.py of the quick start was not run")
@pytest.mark.skipif(not QUANTIZE, reason="FORGE_LLAMA_QUANTIZE names no quantiser")
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("q4_k_m", 15),
        ("q8_0", 7),
        ("q6_k", 18),
        ("q5_k_m", 17),
        ("q3_k_m", 12),
        ("q4_k_s", 14),
        ("q4_0", 2),
        ("q5_0", 8),
        ("q5_k_s", 16),
    ],
)
def test_quantised_tensors_are_the_quantisers(kind: str, number: int, tmp_path: Path) -> None:
    """From the same 32-bit file: a real model whose rows do not divide by 256, so that types fall back."""
    whole = file_of(QUICKSTART, tmp_path / "f32.gguf", "f32")
    other = tmp_path / "b.gguf"
    code = (
        "import ctypes, llama_cpp as l, sys; p = l.llama_model_quantize_default_params(); p.ftype = int(sys.argv[3]); "
        "sys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))"
    )
    assert QUANTIZE is not None
    command = [QUANTIZE, "-c", code, str(whole), str(other), str(number)]
    if "python" not in Path(QUANTIZE).name:
        command = [QUANTIZE, str(whole), str(other), kind.upper()]
    subprocess.run(command, check=True, capture_output=True)
    assert_same(file_of(QUICKSTART, tmp_path / "a.gguf", kind), other)
