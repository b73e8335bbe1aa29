"""Real models of three families, jobs for them, and what torch says that they take."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.job.job import Job
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge_huggingface.facts import shape as shapes
from forge_huggingface.facts.describe import describe

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES = ("llama", "qwen3", "gemma3_text")
CPU = PRESETS["linux-cpu"]
LLAMAS: dict[str, dict[str, Any]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "tie_word_embeddings": False},
}
"""benchmarks/gpu.py's shapes."""


def llama(size: str) -> ModelFacts:
    """Return what forge knows of a Llama of a size."""
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "model_type": "llama"}
    shape = shapes.from_config({**LLAMAS[size], **heads})
    assert shape is not None
    return ModelFacts(id=size, source="folder", task="text", shape=shape, parameters=shape.parameters, context=8192)


def save_model(folder: Path, family: str, *, layers: int = 2, tied: bool | None = None, dtype: str = "float32") -> Any:
    """Write a small random model of a family and return it."""
    import torch
    import transformers

    config_class = {"llama": "LlamaConfig", "qwen3": "Qwen3Config", "gemma3_text": "Gemma3TextConfig"}[family]
    more: dict[str, Any] = {} if tied is None else {"tie_word_embeddings": tied}
    config = getattr(transformers, config_class)(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=256,
        **more,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    return model


def facts_of(folder: Path) -> ModelFacts:
    """Return what forge knows about a model's folder."""
    return describe(str(folder), None, folder)


def make_job(tables: dict[str, Any] | None = None, **train: Any) -> Job:
    """Return a job as a plan settles it: every value decided."""
    tables = {name: dict(table) for name, table in (tables or {}).items()}
    method = train.pop("method", "sft")
    options = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "fp16": False,
        "optim": "adamw_torch_fused",
        "loss_type": "nll",
        **train,
    }
    job = Job.model_validate(
        {
            "model": {"id": "m", "max_seq_length": 64, "dtype": "float32", "attn_implementation": "sdpa"}
            | tables.pop("model", {}),
            "data": {"path": "rows.jsonl"},
            **tables,
        }
    )
    return job.model_copy(update={"train": job.train.model_copy(update={"method": method, **options})})


def kept_by_autograd(model: Any, rows: int, length: int, *, mixed: bool, **given: Any) -> int:
    """Return the bytes that a forward pass of the body leaves for the backward pass, weights not counted.

    Args:
        model: The model.
        rows: Rows of the batch.
        length: Tokens of each.
        mixed: Whether it is computed under autocast.
        given: What the body is told beside the tokens.
    """
    import torch

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, torch.Tensor] = {}  # holding them keeps an address from being given away again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        where = tensor.untyped_storage().data_ptr()
        if where not in weights:
            held[where] = tensor
        return tensor

    body = model.get_base_model().model if hasattr(model, "get_base_model") else model.model
    autocast = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        body(input_ids=torch.zeros(rows, length, dtype=torch.long), use_cache=False, **given)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def on_gpu(memory: int, trl: str = "1.16.0") -> Any:
    """Return a machine with one NVIDIA GPU of so many bytes."""
    machine = PRESETS["linux-cuda"]
    card = replace(machine.accelerators[0], name="a GPU", memory=memory, capability="9.0")
    return replace(machine, accelerators=(card,), versions={**machine.versions, "trl": trl})
