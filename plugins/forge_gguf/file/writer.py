"""Writing a GGUF file, tensor by tensor, without a whole model or a whole intermediate file anywhere."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ExportError, cores
from forge.disk.faults import disk_errors
from forge_gguf.file import quants
from forge_gguf.file.architectures import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge_gguf.file.mixtures import Values
    from forge_gguf.file.quants import Kind, Shape
    from forge_gguf.file.vocabulary import Vocabulary


Progress = Callable[[int, int, float], None]
"""Called with bytes written, bytes in all, and seconds since the start."""

ALIGNMENT = 32


def general(kind: Kind, architecture: str, name: str) -> dict[str, Any]:
    """Return the keys that tell what a file is.

    A user's text stands in ``general.description`` only, which nothing acts on. By ``general.name`` llama.cpp decides
    how marks are read, so it is the vocabulary's.
    """
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.description": f"{name}, trained with forge",
        "general.file_type": kind.file_type,
        "general.quantization_version": 2,
    }


def layout(tensors: Sequence[Tensor], kind: Kind, model: Shape) -> list[tuple[Tensor, str, int]]:
    """Return each tensor with its type and its size in bytes."""
    found = []
    for tensor in tensors:
        format_ = quants.tensor_format(kind, tensor.name, tensor.shape, model)
        rows = 1
        for length in tensor.shape[:-1]:
            rows *= length
        found.append((tensor, format_, rows * quants.row_bytes(format_, tensor.shape[-1])))
    return found


def size(tensors: Sequence[Tensor], kind: Kind, model: Shape) -> int:
    """Return the bytes of all tensors in a file of a type; its keys come on top, most of them the vocabulary."""
    return sum(-(-count // ALIGNMENT) * ALIGNMENT for _, _, count in layout(tensors, kind, model))


def write(
    path: Path,
    keys: Mapping[str, Any],
    tensors: Sequence[Tensor],
    weights: Values,
    kind: Kind,
    model: Shape,
    progress: Progress = lambda _done, _all, _seconds: None,
) -> None:
    """Write a file and flush it to the disk.

    Args:
        path: The file; what stands there is replaced.
        keys: All keys. Whole numbers become 32 bit, tuples arrays.
        tensors: The tensors, in the order of the file.
        weights: Where their values come from.
        kind: The type of the file.
        model: The model's shape, on which mixtures depend.
        progress: Called after each block of rows.

    Raises:
        DiskFull: There is no room.
        ExportError: A value is no finite number, or does not fit into 16 bit.
    """
    import numpy as np

    planned = layout(tensors, kind, model)
    total, start, done = sum(count for *_, count in planned), time.monotonic(), 0
    workers = cores()
    with disk_errors(path), ThreadPoolExecutor(workers, "quantise") as pool, path.open("wb") as file:
        file.write(_head(keys, planned))
        for tensor, format_, count in planned:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            blocks = (
                _fitting(block.reshape(-1, tensor.shape[-1]), format_, tensor) for block in tensor.blocks(weights)
            )
            before = done
            for part in quants.encoded(blocks, format_, pool, workers + 1):
                file.write(np.ascontiguousarray(part).data)
                done += part.nbytes
                progress(done, total, time.monotonic() - start)
            assert done - before == count, tensor.name
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        file.flush()
        os.fsync(file.fileno())


def _fitting(rows: Any, format_: str, tensor: Tensor) -> Any:
    """Refuse values that a 16-bit float would turn into infinity."""
    if format_ == "F16" and abs(rows).max(initial=0) > 65504:
        why = f"{tensor.name} has values above 65504, which float16 cannot hold"
        raise ExportError("the model does not fit into f16", why, 'take "bf16" or "q8_0"')
    return rows


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary with a model of almost no numbers, the smallest file that llama.cpp loads."""
    rows, width = len(vocabulary.tokens), 32
    kind = quants.KINDS["f16"]
    keys = general(kind, "llama", "vocabulary") | vocabulary.keys()
    numbers = {"context_length": 64, "embedding_length": width, "block_count": 1, "feed_forward_length": width}
    numbers |= {"attention.head_count": 1, "attention.head_count_kv": 1, "vocab_size": rows, "rope.dimension_count": 32}
    keys |= {f"llama.{name}": value for name, value in numbers.items()}
    keys["llama.attention.layer_norm_rms_epsilon"] = 1e-5
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = [Tensor("token_embd.weight", "zero", (rows, width)), Tensor("output_norm.weight", "zero", (width,))]
    tensors += [Tensor(f"blk.0.{name}.weight", "zero", (width, width)) for name in matrices]
    tensors += [Tensor(f"blk.0.{name}.weight", "zero", (width,)) for name in ("attn_norm", "ffn_norm")]
    _write_zeros(path, keys, layout(tensors, kind, quants.Shape(1, tied=True)))


def _write_zeros(path: Path, keys: Mapping[str, Any], planned: Sequence[tuple[Tensor, str, int]]) -> None:
    with disk_errors(path), path.open("wb") as file:
        file.write(_head(keys, planned))
        end = file.tell() + -file.tell() % ALIGNMENT + sum(-(-count // ALIGNMENT) * ALIGNMENT for *_, count in planned)
        file.truncate(end)


def _head(keys: Mapping[str, Any], planned: Sequence[tuple[Tensor, str, int]]) -> bytes:
    """Return everything that stands before the tensors' data, as the package ``gguf`` lays it out."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(None, str(keys["general.architecture"]))
    writer.kv_data[0].clear()
    for key, value in keys.items():
        _add(writer, key, value)
    for tensor, format_, count in planned:
        number = gguf.GGMLQuantizationType(quants.FORMATS[format_][0])
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), count, number)
    with tempfile.TemporaryDirectory(prefix="forge-gguf-") as scratch:
        path = Path(scratch, "head")
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return path.read_bytes()


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))
