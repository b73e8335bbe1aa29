"""The LoRA adapter alone, as llama.cpp lays it over the base's own GGUF file.

The two matrices of a module are written under the name of the module's weight with ``.lora_a`` and ``.lora_b`` behind
it (llama.cpp's ``src/llama-adapter.cpp``). llama.cpp multiplies their product by ``adapter.lora.alpha / rank``, one
alpha for all; where modules have others, the factor goes into B and alpha is 0, which it takes for "no factor".
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from forge.api import ExportError, Noted
from forge.disk.files import sha256
from forge_gguf.file.architectures import BUILTIN, Tensor, interleaved, tensors_of_first
from forge_gguf.file.quants import KINDS, Shape
from forge_gguf.file.weights import Adapter, Weights
from forge_gguf.file.writer import general, layout, write
from forge_gguf.llama.runtime import Generator
from forge_gguf.trial import verify
from forge_gguf.trial.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from forge.api import Run
    from forge_gguf.file.quants import Kind
    from forge_gguf.source import Source

# The values are not those of a model's matrix: one mixture for all, and nothing is tied.
_PLAIN = Shape(1, tied=False)


class Matrices:
    """The matrices of an adapter, in the place of a model's weights."""

    def __init__(self, values: dict[str, NDArray[Any]]) -> None:
        self._values = values

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return some rows of a matrix."""
        return self._values[name][start:stop]


def export(run: Run, source: Source, wanted: Sequence[str], out: Path) -> dict[str, dict[str, Any]]:
    """Write and try the adapter's files.

    Returns:
        The record of each file by type.

    Raises:
        ExportError: llama.cpp cannot lay this adapter over a model, or a file did not pass.
    """
    if source.adapter is None:
        raise ExportError("there is no adapter to export", "the whole model was trained", "remove adapter = true")
    adapter = Adapter(source.adapter)
    refuse(adapter)
    for stale in out.iterdir():
        stale.unlink()
    record = {}
    for name in wanted:
        kind, start = KINDS[name], time.monotonic()
        path = out / f"{source.name}-lora-{name}.gguf"
        part = path.with_name(f"{path.name}.part")
        keys, tensors, matrices = content(source, adapter, source.tensors, kind)
        write(part, keys, tensors, matrices, kind, _PLAIN)
        gates = [
            verify.check_keys(part, keys, layout(tensors, kind, _PLAIN), matrices),
            laid_over(source, adapter, out, kind),
        ]
        found = {
            "file": path.name,
            "bytes": part.stat().st_size,
            "gates": {gate.name: gate.to_json() for gate in gates},
        }
        if failed := verify.verdict(gates, kind):
            do = f"{part.name} is kept; the trained adapter is safe"
            raise ExportError(f"the adapter's GGUF file ({name}) did not pass", f"{failed[0]}; {failed[1]}", do)
        record[name] = {**found, "sha256": sha256(part), "write_seconds": round(time.monotonic() - start, 1)}
        part.rename(path)
        run.emit(Noted(f"{path.name}: laid over the base, {gates[1].message}"))
    return record


def refuse(adapter: Adapter) -> None:
    """Refuse what an adapter file cannot hold. Raises :class:`ExportError`."""
    why = None
    if adapter.replaced:
        why = f"{next(iter(adapter.replaced))} was trained whole"
    elif adapter.rows:
        why = "it has rows of new tokens"
    elif any(update.lengths is not None for update in adapter.updates.values()):
        why = "it is DoRA, and an adapter file holds no lengths of rows"
    elif adapter.stacks:
        why = "it adapts experts"
    elif any(update.embedding for update in adapter.updates.values()):
        why = "it adapts the embedding"
    if why:
        raise ExportError("this adapter cannot be a GGUF file of its own", why, "write the merged model")


def content(
    source: Source, adapter: Adapter, tensors: Sequence[Tensor], kind: Kind
) -> tuple[dict[str, Any], list[Tensor], Any]:
    """Return keys, tensors and values of an adapter's file.

    Args:
        source: The trained model.
        adapter: The adapter.
        tensors: The model's tensors; only these are written.
        kind: The type of the file.
    """
    import numpy as np

    alphas = {round(update.scale * update.a.shape[0], 9) for update in adapter.updates.values()}
    alpha = alphas.pop() if len(alphas) == 1 else 0.0
    values: dict[str, NDArray[Any]] = {}
    found = []
    for tensor in tensors:
        update = adapter.updates.get(tensor.source or "")
        if update is None:
            continue
        b = update.b if alpha else update.b * np.float32(update.scale)
        b = b[interleaved(len(b), tensor.heads)] if tensor.heads else b
        for name, matrix in ((f"{tensor.name}.lora_a", update.a), (f"{tensor.name}.lora_b", b)):
            values[name] = np.ascontiguousarray(matrix)
            found.append(Tensor(name, name, tuple(matrix.shape)))
    architecture = BUILTIN[source.config["architectures"][0]].name
    keys = general(kind, architecture, f"adapter of {source.name}")
    keys |= {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": float(alpha)}
    return keys, found, Matrices(values)


def laid_over(source: Source, adapter: Adapter, folder: Path, kind: Kind, layers: int = 2) -> verify.Gate:
    """Lay the first layers' adapter over the first layers of the base in llama.cpp, and compare the logits."""
    exact = KINDS["f16"]
    cut = dataclasses.replace(
        source,
        config={**source.config, "num_hidden_layers": min(layers, source.config["num_hidden_layers"])},
        tensors=tuple(tensors_of_first(source.tensors, layers)),
    )
    base, over = folder / "first-layers.part", folder / "first-layers-lora.part"
    try:
        write(base, cut.keys(exact), cut.tensors, Weights(source.base), exact, cut.shape)
        keys, tensors, matrices = content(source, adapter, cut.tensors, kind)
        write(over, keys, tensors, matrices, kind, _PLAIN)
        with Reference(source.base, source.adapter, layers=layers) as trained:
            chances = [trained.chances(ids) for ids in source.rows]
        with Generator(base, context=max(map(len, source.rows)) + 8, exact=True, lora=over) as generator:
            return verify.check_logits(generator, source.rows, chances, kind)
    finally:
        base.unlink(missing_ok=True)
        over.unlink(missing_ok=True)
