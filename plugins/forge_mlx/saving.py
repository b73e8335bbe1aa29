"""What training leaves: weights, settings and tokenizer as transformers and peft write them, and a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import PluginError
from forge.disk.faults import machine_error
from forge.disk.files import write_text
from forge_huggingface.hub.card import model_card, speed_of
from forge_mlx.adapt import lora_names

if TYPE_CHECKING:
    from forge.api import Job, Run, Trained

_PEFT = "base_model.model."
_SHARD = 5 * 2**30


def folder_of(job: Job) -> str:
    """Return the folder of the weights in a run's."""
    return "model" if job.adapter.type == "none" else "adapter"


def save(job: Job, run: Run, model: Any, processor: Any, trained: Trained) -> None:
    """Write weights and tokenizer under another name, rename them once they are whole, and add the model card.

    Raises:
        MachineError: The disk did not take them.
    """
    folder = run.folder / trained.weights
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if trained.kind == "adapter":
            write_adapter(job, run, model, part)
        else:
            write_model(model.module, model.folder, part, job.model.dtype)
        processor.save_pretrained(part)
    except Exception as error:
        if (fault := machine_error(error, part)) is None:
            raise
        shutil.rmtree(part, ignore_errors=True)  # which makes room for the rest
        raise fault from error
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    card = model_card(job, run.plan, trained, folder.name, speed=speed_of(run.folder))
    for place in (folder, run.folder):
        write_text(place / "README.md", card)


def write_adapter(job: Job, run: Run, model: Any, folder: Path) -> None:
    """Write the adapter as peft does: its names, shapes and settings."""
    import mlx.core as mx

    from forge_mlx.training.state import trained

    wrapped = model.adapter
    config = wrapped.peft_config["default"]
    facts = run.plan.facts
    # The id of a model of the hub means the same on every machine.
    config.base_model_name_or_path = facts.path if facts.source == "folder" else job.model.id
    config.revision, config.use_dora, config.inference_mode = facts.revision, job.adapter.use_dora, True
    config.save_pretrained(folder)
    weights = {peft_name(name): value for name, value in trained(model.module).items()}
    expected = lora_names(wrapped)
    if missing := sorted(expected - weights.keys()):
        what = f"{len(missing)} of the adapter's {len(expected)} weights were not trained, as {missing[0]}"
        raise PluginError("what was trained is not what peft would write", what, "please report this")
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), weights, metadata={"format": "pt"})


def peft_name(name: str) -> str:
    """Return peft's name of an adapter's weight.

    >>> peft_name("model.layers.0.mlp.up_proj.lora_A")
    'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight'
    """
    return f"{_PEFT}{name}" if name.endswith("magnitude_vector") else f"{_PEFT}{name}.weight"


def write_model(module: Any, base: Path, folder: Path, dtype: str) -> None:
    """Write a whole model as transformers does, with the base model's settings."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    parts: list[dict[str, Any]] = [{}]
    size = 0
    for name, value in tree_flatten(module.parameters()):
        if size + value.nbytes > _SHARD and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += value.nbytes
    placed: dict[str, str] = {}
    for number, weights in enumerate(parts, 1):
        file = "model.safetensors" if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        mx.save_safetensors(str(folder / file), weights, metadata={"format": "pt"})
        placed |= dict.fromkeys(weights, file)
    if len(parts) > 1:
        total = sum(value.nbytes for weights in parts for value in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=2))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    write_text(folder / "config.json", json.dumps({**config, "dtype": dtype}, indent=2))
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
