"""Adapters that begin as a part of the base model: PiSSA and OLoRA (Meng et al., arXiv 2404.02948; 2406.01775).

peft takes the part out of the base's weights and trains it: with the base as it is stored, such an adapter would count
its beginning twice. So what it began as is kept, and what training leaves is written as a plain LoRA of twice the rank,
whose second half takes the beginning away again: ``B A - B0 A0 = [B, -B0] [A; A0]``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forge.disk.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

KEPT = "initial_adapter.safetensors"
"""The file in a run's folder with what the adapter began as."""


def keep(model: Any, folder: Path) -> None:
    """Write what an adapter begins as into the run's folder."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    matrices = {name: value.detach().contiguous().cpu() for name, value in state.items() if ".lora_" in name}
    save_file(matrices, folder / KEPT)


def as_plain_lora(folder: Path, kept: Path) -> None:
    """Rewrite a saved adapter as one for the base as it is stored.

    Args:
        folder: The adapter, as peft saved it: A of shape (r, in) and B of shape (out, r) for each module.
        kept: What it began as, with the same names and shapes.
    """
    import torch
    from safetensors.torch import load_file, save_file

    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    trained, first = load_file(file), load_file(kept)
    for name, begun in first.items():
        value = trained[name]
        begun = begun.to(value.dtype)
        pair = (value, begun) if ".lora_A." in name else (value, -begun)
        trained[name] = torch.cat(pair, dim=0 if ".lora_A." in name else 1).contiguous()
    save_file(trained, file, metadata={"format": "pt"})
    said = json.loads(config.read_text(encoding="utf-8"))
    # The scale stays: alpha / r, or alpha / sqrt(r) under rank-stabilised LoRA.
    more = 2**0.5 if said.get("use_rslora") else 2
    for key, factor in (("r", 2), ("lora_alpha", more)):
        said[key] *= factor
    for key, factor in (("rank_pattern", 2), ("alpha_pattern", more)):
        said[key] = {name: value * factor for name, value in (said.get(key) or {}).items()}
    said["init_lora_weights"] = True
    write_text(config, json.dumps(said, indent=2, sort_keys=True))
