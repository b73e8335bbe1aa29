"""What can be said about a GGUF export before anything is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import Problem
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.export import NO_ADAPTER, without_login

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
    "SmolLM3ForCausalLM",
    "GraniteForCausalLM",
    "Olmo2ForCausalLM",
    "Qwen3MoeForCausalLM",
    "OlmoeForCausalLM",
    "MixtralForCausalLM",
    "GraniteMoeForCausalLM",
)
"""Those that forge writes itself: the names of ``architectures.BUILTIN``, here because they are needed without it."""

SCRIPT = "convert_hf_to_gguf.py"
CONVERTED = ("f32", "f16", "bf16", "q8_0")
"""The types that llama.cpp's converter writes."""


def foreign(facts: ModelFacts) -> bool:
    """Whether forge does not write this architecture itself."""
    return bool(facts.architectures) and facts.architectures[0] not in ARCHITECTURES


def converter(job: Job, index: int | None = None) -> Path | None:
    """Return the folder of llama.cpp's converter that the job, or ``FORGE_LLAMA_CPP``, names.

    Args:
        job: The job.
        index: Of which export; None for the first GGUF export that names one.
    """
    tables = job.export if index is None else [job.export[index]]
    for table in tables:
        if table.format == "gguf" and table.options.get("converter"):
            return job.path(str(table.options["converter"]))
    named = os.environ.get("FORGE_LLAMA_CPP")
    return Path(named) if named else None


def cannot_export(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why the trained model could not be written as GGUF, or None."""
    if facts.quantized:
        return f"the base is stored in {facts.quantized}; GGUF files are made from 16 or 32 bit weights: train on those"
    if (method := METHODS.get(job.train.method)) and not method.answers:
        what = "a reward model ends in one number" if method.head == "reward" else "a classifier ends in labels"
        return f"{what}, not in words, and llama.cpp's programs only write words; export it merged"
    if job.train.method in {"embedding", "reranker"}:
        what = (
            f'method = "{job.train.method}" trains a model that gives numbers, and forge tries GGUF files by what they'
        )
        return f'{what} write; take format = "merged", which llama.cpp\'s own converter reads'
    saved = {name.rpartition(".")[2] for name in job.adapter.modules_to_save or ()} & {"embed_tokens", "lm_head"}
    apart = job.adapter.type == "lora" and len(saved) == 1 and not job.adapter.ensure_weight_tying
    if apart and facts.shape is not None and facts.shape.tied:
        what = f"modules_to_save: {min(saved)} is trained apart from the other one, which the model has in one"
        return f"{what}; write [adapter] ensure_weight_tying = true, or name both"
    tree = converter(job)
    if tree is not None and not (tree / SCRIPT).is_file():
        return f"{tree} has no {SCRIPT}; name the folder of a llama.cpp tree"
    if facts.task == "vision" and tree is None:
        return (
            f"vision models need llama.cpp's converter, and no tree of it is named: set converter to its folder, or "
            f"export merged and run there: python {SCRIPT} MERGED --outtype q8_0, and again with --mmproj"
        )
    if facts.task not in {"text", "unknown", "vision"}:
        return f"models of the kind {facts.task} cannot be written as GGUF"
    if tree is not None and (facts.task == "vision" or foreign(facts)):
        asked = {name for table in job.export if table.format == "gguf" for name in table.options.get("types") or ()}
        if other := sorted(asked - set(CONVERTED)):
            return f"llama.cpp's converter writes {', '.join(CONVERTED)}; make {other[0]} of them with llama-quantize"
    if foreign(facts) and tree is None:
        return (
            f"architecture {facts.architectures[0]} is not built in, and no llama.cpp tree is named: set converter to "
            f"its folder, or export merged and run there: python {SCRIPT} MERGED"
        )
    return None


def problems(job: Job) -> Iterable[Problem]:
    """Yield exports that cannot be."""
    for index, export in enumerate(job.export):
        if export.format != "gguf":
            continue
        if export.push_to_hub:
            yield from without_login(f"export.{index}.push_to_hub")
        if export.options.get("adapter"):
            yield from _adapter_problems(job, f"export.{index}.adapter")


def _adapter_problems(job: Job, where: str) -> Iterable[Problem]:
    table = job.adapter
    if table.leaves_model:
        yield Problem(where, NO_ADAPTER, "remove the key")
        return
    whole = "write the merged model: remove the key"
    if job.model.new_tokens:
        yield Problem(where, "an adapter file cannot hold rows of new tokens", whole)
    if table.use_dora:
        yield Problem(where, "llama.cpp has no DoRA: an adapter file holds no lengths of rows", whole)
    if table.modules_to_save:
        names = ", ".join(table.modules_to_save)
        yield Problem(where, f"an adapter file cannot hold modules that were trained whole ({names})", whole)
    if table.target_parameters:
        yield Problem(where, "forge writes no adapter file with LoRA on experts", whole)
    if table.bias != "none":
        yield Problem(where, "an adapter file cannot hold trained biases", whole)
