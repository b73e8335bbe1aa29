"""What safetensors files say about a model before anything loads it.

A safetensors file starts with the length of a JSON header and the header itself: names, types and shapes of all
tensors. Reading only that tells how large a model is and whether its files are whole, for a 16 GB model in a few
milliseconds and without the safetensors package, which the parent process does not need to have.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, first_line
from forge_huggingface.facts.folder import damaged, read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_HEADER_LIMIT = 100_000_000  # the format's own; a larger number means that this is no safetensors file
_INDEX = "model.safetensors.index.json"
_DTYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "I32": "int32",
    "I64": "int64",
}
_BITS: Mapping[str, int] = {
    "BOOL": 8,
    **dict.fromkeys(("U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class Header:
    """The start of one safetensors file.

    Attributes:
        name: The file's name.
        size: The file's size in bytes.
        raw: The header's bytes.
        tensors: Each tensor's type and number of elements.
        shapes: Each tensor's extents.
    """

    name: str
    size: int
    raw: bytes
    tensors: Mapping[str, tuple[str, int]]
    shapes: Mapping[str, tuple[int, ...]]


class MissingWeightsError(ModelError):
    """The folder lacks weights, wholly or in part; in a download cache that is no mistake."""


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file and check that the file is as long as the header says.

    Raises:
        ModelError: If the file is cut short, padded, or no safetensors file.
    """
    again = "copy or download it again"
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":  # "version https://git-lfs.github.com/spec/v1"
            raise ModelError(f"{path} is a Git LFS pointer, not weights", None, "run `git lfs pull` in its folder")
        if len(start) < 8:
            raise ModelError(f"{path} is damaged", f"it has {size} bytes, too few for a safetensors header", again)
        (length,) = struct.unpack("<Q", start)
        if length > _HEADER_LIMIT:
            raise ModelError(f"{path} is no safetensors file", f"it claims a header of {length} bytes", again)
        raw = file.read(length)
    if len(raw) < length:
        why = f"it has {size} bytes, and its header alone should have {8 + length}"
        raise ModelError(f"{path} is damaged", why, again)
    try:
        tensors, shapes, end = _parse(json.loads(raw))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        why = "its header is not that of a safetensors file"
        raise ModelError(f"{path} is damaged", f"{why}: {first_line(error)}", again) from error
    expected = 8 + length + end
    if size != expected:
        raise ModelError(f"{path} is damaged", f"it has {size} bytes, and its header promises {expected}", again)
    return Header(path.name, size, raw, tensors, shapes)


def _parse(header: Any) -> tuple[dict[str, tuple[str, int]], dict[str, tuple[int, ...]], int]:
    tensors: dict[str, tuple[str, int]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shapes[name] = tuple(_number(extent, name) for extent in entry["shape"])
        tensors[name] = kind, count = str(entry["dtype"]), math.prod(shapes[name])
        start, stop = (_number(place, name) for place in entry["data_offsets"])
        if (bits := _BITS.get(kind)) is not None and 8 * (stop - start) != bits * count:
            raise ValueError(f"{name} has {stop - start} bytes for {count} numbers of the type {kind}")
        places.append((start, stop, name))
    end = 0
    for start, stop, name in sorted(places):
        if start != end or stop < start:
            raise ValueError(f"{name} begins at {start}, and what is before it ends at {end}")
        end = stop
    return tensors, shapes, end


def _number(value: Any, name: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} has {value!r} where a whole number must be")
    return value


def read_folder(folder: Path) -> tuple[Header, ...]:
    """Read the headers of a model folder's weights: of the one file, or of every shard of the index.

    Raises:
        MissingWeightsError: If there are none, or a shard is missing.
        ModelError: If a file is damaged.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return (read_header(single),)
    index = folder / _INDEX
    if not index.is_file():
        raise _without_weights(folder)
    placed = read_object(index).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(shard, str) for shard in placed.values()):
        raise damaged(index, "it has no weight_map")
    if aliens := [shard for shard in placed.values() if not shard or Path(shard).name != shard]:
        raise damaged(index, f"its weight_map names {aliens[0]!r}, which is no file of the folder")
    shards = sorted(set(placed.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        what = f"{folder} lacks {len(missing)} of its {len(shards)} weight files"
        listed = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise MissingWeightsError(what, f"{_INDEX} names {listed}", "copy or download the folder again")
    headers = tuple(read_header(folder / shard) for shard in shards)
    present = {shard: header.tensors for shard, header in zip(shards, headers, strict=True)}
    for tensor, shard in placed.items():
        if tensor not in present[shard]:
            why = f"{_INDEX} places the tensor {tensor} in {shard}, which does not hold it"
            raise ModelError(f"{folder} is not consistent", why, "copy or download the folder again")
    return headers


def _without_weights(folder: Path) -> MissingWeightsError:
    what = f"{folder} has a config.json but no model.safetensors and no {_INDEX}"
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        why = f"the weights in it ({', '.join(others[:3])}) have names that transformers does not look for"
        return MissingWeightsError(what, why, "name the weights of the whole model model.safetensors")
    if pickles:
        why = f"forge loads safetensors only, and {', '.join(pickles[:3])} may run code when loaded"
        do = "convert them: load the model with transformers and call save_pretrained"
        return MissingWeightsError(what, why, do)
    return MissingWeightsError(what, "there are no weights in it", "name a folder that save_pretrained wrote")


def parameters(headers: Iterable[Header], *, tied: bool) -> int:
    """Count a model's parameters.

    Args:
        headers: The headers of all its files.
        tied: Whether the output layer is the embedding; it then counts once, though some files hold it twice.
    """
    tensors = {name: count for header in headers for name, (_, count) in header.tensors.items()}
    total = sum(count for name, count in tensors.items() if not _is_scale(name))
    if tied and "lm_head.weight" in tensors and any(name.endswith("embed_tokens.weight") for name in tensors):
        total -= tensors["lm_head.weight"]
    return total


def _is_scale(name: str) -> bool:
    """Whether a tensor belongs to the way in which another is stored: the scales of 8-bit weights."""
    return name.endswith((".SCB", ".weight_format", "_scale", "_scale_inv"))


def dtype(headers: Sequence[Header]) -> str | None:
    """Return the type that most elements have, by torch's name."""
    counts: Counter[str] = Counter()
    for header in headers:
        for kind, count in header.tensors.values():
            counts[kind] += count
    if not counts:
        return None
    kind = counts.most_common(1)[0][0]
    return _DTYPES.get(kind, kind)


@functools.lru_cache(maxsize=256)
def parameters_below(folder: str, digest: str | None, name: str) -> int:
    """Return how many parameters a folder's headers have below the modules of a name, or whose names end in it.

    Args:
        folder: The folder.
        digest: The model's, by which the answer is remembered.
        name: The name.
    """
    del digest
    return sum(
        count
        for header in read_folder(Path(folder))
        for tensor, (_, count) in header.tensors.items()
        if f".{name}." in f".{tensor}"
    )
