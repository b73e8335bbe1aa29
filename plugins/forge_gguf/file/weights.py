"""The trained model's tensors, a few rows at a time, straight from the files of the run.

For an adapter run the base and the adapter are merged on the way: each row that is read is the base's row plus its part
of the update, in float32. So no whole model is ever in memory, no merged copy lies on the disk, and the update is
rounded once, into the type of the file. Files are read with plain reads: memory maps would count every page that was
touched as memory of this process.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import ExportError, ModelError, first_line
from forge_gguf.file.mixtures import expert_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


_TYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2)}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies: its file, type, shape, and the place of its first byte."""

    file: Path
    type: str
    shape: tuple[int, ...]
    start: int

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Read rows as float32; a tensor of one dimension is one column."""
        import numpy as np

        kind, size = _TYPES[self.type]
        width = math.prod(self.shape[1:])
        raw: NDArray[Any] = np.empty((stop - start) * width, np.dtype(kind))
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start + start * width * size)
            _fill(file, raw.data.cast("B"))
        if self.type == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False).reshape(stop - start, *self.shape[1:])

    def whole(self) -> NDArray[Any]:
        """Read all of it as float32."""
        return self.rows(0, self.shape[0])


def _fill(file: Any, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise ModelError(f"{file.name} is cut short", "it ends inside a tensor", "copy or download it again")
        done += count


def index(folder: Path) -> dict[str, Stored]:
    """Return the tensors of a folder's safetensors files by name.

    The format: eight bytes with the length of a JSON header, the header, the data
    (https://huggingface.co/docs/safetensors, "Format").

    Raises:
        ModelError: A file is missing, cut short, or holds types that are no plain floats.
    """
    listed = folder / "model.safetensors.index.json"
    if listed.is_file():
        places: Mapping[str, str] = json.loads(listed.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    else:
        names = ("model.safetensors", "adapter_model.safetensors")
        files = [name for name in names if (folder / name).is_file()][:1]
        places = {}
    if not files:
        raise ModelError(f"{folder} has no weights", "there is no safetensors file in it", "restore the folder")
    found: dict[str, Stored] = {}
    for name in files:
        found |= _header(folder / name)
    if missing := sorted(set(places) - set(found)):
        why = f"{listed.name} promises {len(missing)} tensors that no file has, such as {missing[0]}"
        raise ModelError(f"{folder} is not consistent", why, "copy or download the folder again")
    return found


def _header(path: Path) -> dict[str, Stored]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        why = first_line(error)
        raise ModelError(f"{path} cannot be read", why, "copy or download it again") from error
    found = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] not in _TYPES:
            why = f"{name} is stored as {about['dtype']}; only 32 and 16 bit floats can be converted"
            raise ModelError(f"{path} cannot be written as GGUF", why, "export from a base in 16 bit")
        if 8 + length + about["data_offsets"][1] > size:
            raise ModelError(f"{path} is cut short", f"{name} lies beyond its end", "copy or download it again")
        shape = tuple(about["shape"]) or (1,)
        found[name] = Stored(path, about["dtype"], shape, 8 + length + about["data_offsets"][0])
    return found


@dataclass(slots=True)
class Update:
    """What LoRA adds to one matrix: ``scale * B @ A``, and DoRA's lengths of the rows.

    The formulas are those of LoRA (arXiv:2106.09685), rsLoRA (arXiv:2312.03732: scale by the root of the rank) and
    DoRA (arXiv:2402.09353: each row of the sum is brought to a length that was trained).
    """

    a: NDArray[Any]
    b: NDArray[Any]
    scale: float
    lengths: NDArray[Any] | None = None
    embedding: bool = False

    def add(self, rows: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """Return the rows ``start`` to ``stop`` of the merged matrix, given those of the base; float32."""
        import numpy as np

        part = self.a[:, start:stop].T @ self.b.T if self.embedding else self.b[start:stop] @ self.a
        merged = rows + np.float32(self.scale) * part
        if self.lengths is not None:
            merged *= (self.lengths[start:stop] / np.linalg.norm(merged, axis=1))[:, None]
        return merged


@dataclass(slots=True)
class Stack:
    """What LoRA adds to all experts of a block, which peft keeps as one pair of matrices (``lora.layer.ParamWrapper``).

    Attributes:
        block: The number of the block.
        a: The matrices A of all experts, one below the other: (experts times rank, inputs).
        b: The matrices B, interleaved: (outputs, rank times experts).
        alpha: The scale, to be divided by the rank.
        rooted: Whether it is divided by the root of the rank.
    """

    block: int
    a: NDArray[Any]
    b: NDArray[Any]
    alpha: float
    rooted: bool

    def of(self, expert: int, experts: int, first: int, last: int) -> Update:
        """Return what is added to rows of one expert's matrix."""
        rank = self.a.shape[0] // experts
        a = self.a.reshape(experts, rank, -1)[expert]
        b = self.b.reshape(-1, rank, experts)[first:last, :, expert]
        return Update(a, b, self.alpha / (math.sqrt(rank) if self.rooted else rank))


@dataclass(slots=True)
class Stacked:
    """What LoRA adds to a stack of matrices, one for each expert."""

    updates: tuple[Update, ...]

    def add(self, rows: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """Return the matrices ``start`` to ``stop`` of the merged stack, given those of the base; float32."""
        import numpy as np

        pairs = zip(rows, self.updates[start:stop], strict=True)
        return np.stack([update.add(matrix, 0, len(matrix)) for matrix, update in pairs])


class Adapter:
    """A peft adapter of the LoRA family.

    Attributes:
        updates: What is added to a matrix, by the matrix's name in the base.
        stacks: What is added to the experts of blocks.
        replaced: Tensors that were trained whole, by name.
        rows: The rows of tokens that were trained, by the name of their matrix: their numbers, and what they are.
    """

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        self.updates: dict[str, Update] = {}
        self.stacks: list[Stack] = []
        self.replaced: dict[str, Stored] = {}
        self.rows: dict[str, tuple[list[int], NDArray[Any]]] = {}
        tokens: dict[str, list[int]] = config.get("trainable_token_indices") or {}
        parts: dict[str, dict[str, Stored]] = {}
        experts: dict[tuple[str, str], dict[str, Stored]] = {}
        for name, stored in index(folder).items():
            plain = name.removeprefix("base_model.model.")
            if config.get("target_parameters") and (found := _OF_EXPERTS.fullmatch(plain)):
                experts.setdefault((found[1], found[3]), {})[found[4]] = stored
                continue
            plain = re.sub(r"\.(base_layer|modules_to_save(\.default)?|original_module)(?=\.)", "", plain)
            if found := re.fullmatch(r"(.+)\.lora_(embedding_)?(A|B|magnitude_vector)(\.default)?(\.weight)?", plain):
                parts.setdefault(found[1], {})[(found[2] or "") + found[3]] = stored
            elif found := re.fullmatch(r"(.+)\.token_adapter\.trainable_tokens_delta", plain):
                self.rows[f"{found[1]}.weight"] = (tokens[found[1].rpartition(".")[2]], stored.whole())
            elif ".lora_" in plain:
                self._refuse(f"it holds {name}")
            else:
                self.replaced[plain] = stored
        for key in (
            "fan_in_fan_out",
            "layer_replication",
            "alora_invocation_tokens",
            "use_qalora",
        ):
            if config.get(key):
                self._refuse(f"it has {key}")
        if config.get("peft_type") != "LORA":
            self._refuse(f"it is of the kind {config.get('peft_type')}")
        for (module, _), mine in experts.items():
            alpha, block = self._alpha(module, config), int(module.split(".layers.")[1].split(".")[0])
            self.stacks.append(
                Stack(block, mine["A"].whole(), mine["B"].whole(), alpha, bool(config.get("use_rslora")))
            )
        for module, mine in parts.items():
            self.updates[f"{module}.weight"] = self._update(module, mine, config)

    @staticmethod
    def _alpha(module: str, config: Mapping[str, Any]) -> float:
        for pattern, value in (config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):  # as peft's get_pattern_key
                return float(value)
        return float(config["lora_alpha"])

    @staticmethod
    def _refuse(why: str) -> None:
        raise ExportError(
            "this adapter cannot be merged tensor by tensor", why, "export it as merged, and convert that folder"
        )

    def _update(self, module: str, parts: Mapping[str, Stored], config: Mapping[str, Any]) -> Update:
        embedding = "embedding_A" in parts
        names = ("embedding_A", "embedding_B") if embedding else ("A", "B")
        if not set(names) <= set(parts):
            self._refuse(f"one of the two matrices of {module} is missing")
        a, b = (parts[name].whole() for name in names)
        alpha = self._alpha(module, config)
        rank = a.shape[0]
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        lengths = parts["magnitude_vector"].whole().reshape(-1) if "magnitude_vector" in parts else None
        return Update(a, b, scale, lengths, embedding)


_OF_EXPERTS = re.compile(r"(.+\.layers\.\d+\.(.+\.)?experts)((?:\.base_layer)*)\.lora_(A|B)(?:\.default)?\.weight")


class Weights:
    """A model's tensors under the names of its Hugging Face class.

    Args:
        base: The folder with the (base) model.
        adapter: The folder with the adapter, if there is one.
    """

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        self._stored = index(base)
        self._adapter = Adapter(adapter) if adapter else None
        self._added: dict[str, Update | Stacked] = {}
        if self._adapter:
            self._added |= self._adapter.updates
            for stack in self._adapter.stacks:
                self._added |= spread(stack, self._stored)
            if strange := sorted({*self._adapter.updates, *self._adapter.rows} - set(self._stored)):
                why = f"it changes {strange[0]}, which the base does not have"
                raise ExportError("the adapter does not fit the base model", why, "name the base it was trained on")
            self._stored |= self._adapter.replaced

    def names(self) -> list[str]:
        """Return all names, in the order of the files."""
        return list(self._stored)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, rows first."""
        return self._stored[name].shape

    def count(self) -> int:
        """Return the number of weights."""
        return sum(math.prod(stored.shape) for stored in self._stored.values())

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of the trained tensor as float32.

        Raises:
            ExportError: They are not finite numbers.
        """
        import numpy as np

        rows = self._stored[name].rows(start, stop)
        if update := self._added.get(name):
            rows = update.add(rows, start, stop)
        if self._adapter and name in self._adapter.rows:
            for number, row in zip(*self._adapter.rows[name], strict=True):
                if start <= number < stop:
                    rows[number - start] = row
        if not np.isfinite(rows).all():
            why = f"{name} has values that are no finite numbers (rows {start} to {stop})"
            raise ExportError("the trained weights are broken", why, "the training diverged: lower its learning rate")
        return rows


def spread(stack: Stack, stored: Mapping[str, Stored]) -> dict[str, Update | Stacked]:
    """Return what LoRA adds to the experts of a block, by the names of their matrices in the base.

    Raises:
        ExportError: They fit none of the base's.
    """
    mine = {name: told for name in stored if (told := expert_of(name)) is not None and told[0] == stack.block}
    places = {index for _, index, _ in mine.values() if index is not None}
    found: dict[str, Update | Stacked] = {}
    for name, (_, index, parts) in mine.items():
        *several, rows, width = stored[name].shape
        count = several[0] if several else len(places)
        height = rows if several else rows * (1 if parts == ("down",) else 2)  # gate lies above up
        if (height, width) != (stack.b.shape[0], stack.a.shape[1]) or stack.a.shape[0] % count:
            continue
        if index is None:
            found[name] = Stacked(tuple(stack.of(each, count, 0, rows) for each in range(count)))
        else:
            first = rows if parts == ("up",) else 0
            found[name] = stack.of(index, count, first, first + rows)
    if not found:
        why = f"what it adds to the experts of block {stack.block} fits none of the base's"
        raise ExportError("the adapter does not fit the base model", why, "name the base it was trained on")
    return found
