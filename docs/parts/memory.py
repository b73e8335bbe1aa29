"""Memory: the smallest card for a model, and what was measured beside the estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.job.job import Job
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge_huggingface.facts import shape as shapes
from forge_huggingface.memory import estimate
from forge_unsloth import estimate as unsloth
from parts.markdown import table

if TYPE_CHECKING:
    from collections.abc import Callable


SIZES: Mapping[str, tuple[int, int, int, int, int, int, int, bool]] = {
    # Hidden, intermediate, layers, heads, kv heads, head_dim, vocab, tied: from the models' config.json.
    "1B (Llama 3.2)": (2048, 8192, 16, 32, 8, 64, 128256, True),
    "3B (Llama 3.2)": (3072, 8192, 28, 24, 8, 128, 128256, True),
    "4B (Qwen3)": (2560, 9728, 36, 32, 8, 128, 151936, True),
    "8B (Llama 3.1)": (4096, 14336, 32, 32, 8, 128, 128256, False),
    "14B (Qwen3)": (5120, 17408, 40, 40, 8, 128, 151936, False),
    "32B (Qwen3)": (5120, 25600, 64, 64, 8, 128, 151936, False),
    "70B (Llama 3.1)": (8192, 28672, 80, 64, 8, 128, 128256, False),
}


CARDS = {8: 7.9, 12: 11.9, 16: 15.0, 24: 22.5, 32: 31.8, 40: 39.4, 48: 45.0, 80: 79.2, 141: 140.4, 180: 178.0}
"""What cards are sold as, in GB, and the least GiB that the driver says of one: T4, L4 and A10, L40S, H100, H200, …"""


def minimum() -> str:
    """The smallest GPU for a model of a size, as the estimator says."""
    modes: Mapping[str, Mapping[str, Any]] = {
        "QLoRA": {"model": {"load_in_4bit": True, "dtype": "bfloat16"}},
        "LoRA, 16 bit": {"model": {"dtype": "bfloat16"}},
        "every weight": {"model": {"dtype": "float32"}, "adapter": {"type": "none"}},
    }
    head = [f"{mode}, {backend}" for mode in modes for backend in ("transformers", "Unsloth")]
    rows = []
    for name, numbers in SIZES.items():
        cells = []
        for tables in modes.values():
            cells += [smallest(numbers, tables, function) for function in (estimate.estimate, unsloth.estimate)]
        rows.append([name, *cells])
    return table(["model", *head], rows)


MEASURED: Sequence[tuple[str, int, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, float]]] = (
    # Model, rows, what, tables, arguments, GiB by backend. TRL's and Unsloth's plain scripts, and forge's runs.
    ("1B (Llama 3.2)", 4, "LoRA", {}, {}, {"transformers": 4.42, "Unsloth": 3.69}),
    ("1B (Llama 3.2)", 4, "QLoRA", {"load_in_4bit": True}, {}, {"transformers": 2.63, "Unsloth": 2.38}),
    ("1B (Llama 3.2)", 4, "LoRA, no checkpointing", {}, {"gradient_checkpointing": False},
     {"transformers": 17.36, "Unsloth": 11.33}),
    ("1B (Llama 3.2)", 4, "LoRA, all logits at once", {}, {"loss_type": "nll"}, {"transformers": 14.80}),
    ("8B (Llama 3.1)", 2, "LoRA", {}, {}, {"transformers": 17.81, "Unsloth": 16.30}),
    ("8B (Llama 3.1)", 2, "QLoRA", {"load_in_4bit": True}, {}, {"transformers": 7.57, "Unsloth": 6.88}),
)  # fmt: skip


def measured() -> str:
    """What an H200 measured, beside the estimate."""
    rows = []
    for name, count, what, model, train, peaks in MEASURED:
        for backend, gib in peaks.items():
            tables = {"model": {"dtype": "bfloat16", **model}}
            arguments = {"per_device_train_batch_size": count, "loss_type": "chunked_nll", **train}
            function = unsloth.estimate if backend == "Unsloth" else estimate.estimate
            found = estimated(SIZES[name], tables, arguments, function, 140.4, "1.14.2").peak / 2**30
            rows.append([f"{name}, {count} rows", what, backend, f"{gib:.2f}", f"{found:.2f}", f"{found / gib:.3f}"])
    return table(["model", "training", "backend", "measured GiB", "estimated GiB", "ratio"], rows)


def smallest(numbers: tuple[Any, ...], tables: Mapping[str, Any], function: Callable[..., Any]) -> str:
    """Return the smallest card on which a model can be trained, one row of 2048 tokens at a time, and what it takes."""
    for sold, memory in CARDS.items():
        found = estimated(numbers, tables, {"per_device_train_batch_size": 1, "loss_type": "nll"}, function, memory)
        if found.fits:
            return f"{sold} GB ({found.process / 2**30:.1f} GiB)"
    return f"no single one ({found.process / 2**30:,.0f} GiB)"


def estimated(
    numbers: tuple[Any, ...],
    tables: Mapping[str, Any],
    train: Mapping[str, Any],
    function: Callable[..., Any],
    memory: float,
    trl: str = "1.16.0",
) -> Any:
    """Return a backend's estimate for a model of some shape, on a GPU with so many GiB."""
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    names += ["head_dim", "vocab_size", "tie_word_embeddings"]
    shape = shapes.from_config(dict(zip(names, numbers, strict=True)))
    assert shape is not None
    facts = ModelFacts(id="m", source="folder", task="text", shape=shape, parameters=shape.parameters)
    values = {"model": {"id": "m"} | dict(tables["model"]), "adapter": tables.get("adapter", {}), "data": {"path": "d"}}
    job = Job.model_validate(values)
    options_ = {"gradient_checkpointing": True, "bf16": True, **train}
    job = job.model_copy(update={"train": job.train.model_copy(update=options_)})
    machine = PRESETS["linux-cuda"]
    card = replace(machine.accelerators[0], memory=round(memory * 2**30))
    versions = {**machine.versions, "trl": trl}
    return function(replace(machine, accelerators=(card,), versions=versions), job, facts)
