"""The 16-bit model that a quantised base was made from, to merge an adapter into: brought here and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import ExportError
from forge_huggingface.facts.safetensors import read_folder
from forge_huggingface.hub.config import reconfigured
from forge_huggingface.hub.snapshot import MODEL_FILES, download

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from forge.api import Job, Run

FLOATS = frozenset({"F32", "F16", "BF16"})
ROWS = 4096
"""Rows of the embedding that are compared."""

ROUNDED = 2**-7
"""The relative difference that two 16-bit types make at the most."""


def original_of(job: Job, run: Run, name: str, base: Path) -> Path:
    """Return the folder of the model that a quantised base was made from.

    Args:
        job: The job.
        run: The run.
        name: Its hub id or folder.
        base: The folder of the quantised base.

    Raises:
        ModelError: It cannot be had.
        ExportError: The base was not made from it.
    """
    folder = job.path(name)
    if not folder.is_dir():
        folder = download(name, None, list(MODEL_FILES), f"the model {name}", "model")
    hold_to(folder, base, name)
    return reconfigured(folder, job, run)


def hold_to(folder: Path, base: Path, name: str) -> None:
    """Refuse a model whose embedding or norms are not those of a quantised base, which quantising leaves as they are.

    Raises:
        ExportError: They differ, or there are none to compare.
        ModelError: The weights cannot be read.
    """
    import torch

    mine, other = _floats(base), _floats(folder)
    common = sorted(mine.keys() & other.keys())
    if not common:
        why = "its files and those of the base have no weight of one name that both keep in 16 or 32 bit"
        raise ExportError(f"{name} cannot be held to the base", why, "name the model that the base was made from")
    for tensor in common:
        one, two = _read(base / mine[tensor], tensor), _read(folder / other[tensor], tensor)
        if one.shape == two.shape:
            far = (one - two).abs() > ROUNDED * torch.maximum(one.abs(), two.abs()) + 1e-6
            if far.float().mean() <= 0.001:
                continue
        why = f"{tensor} is another one there, and quantising leaves it as it is"
        raise ExportError(f"the base was not made from {name}", why, "name the model that it was made from")


def _floats(folder: Path) -> dict[str, str]:
    """Return the files of the embedding and of norms that are kept in floats, by name."""
    return {
        name: header.name
        for header in read_folder(folder)
        for name, (kind, _) in header.tensors.items()
        if kind in FLOATS
        and (name.endswith("embed_tokens.weight") or (len(header.shapes[name]) == 1 and name.endswith("norm.weight")))
    }


def _read(file: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        found: torch.Tensor = opened.get_slice(name)[:ROWS].float()
    return found
