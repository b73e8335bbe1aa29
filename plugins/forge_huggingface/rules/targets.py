"""Targets of LoRA that reach nothing, told from the names in the weights' files before anything is loaded.

Files may name layers otherwise than transformers does in memory: those of a vision model, whose parts have moved, and
the experts of a mixture, which are one parameter there. Of these only loading tells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import ModelError, did_you_mean
from forge_huggingface.facts.shape import EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forge.api import Job, ModelFacts

NAMED_AS_LLAMA = frozenset(
    {
        "cohere",
        "cohere2",
        "gemma",
        "gemma2",
        "gemma3_text",
        "granite",
        "llama",
        "ministral",
        "mistral",
        "olmo",
        "olmo2",
        "olmo3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Families whose layers have Llama's names, so that config.json alone tells them."""

PREFIXES = ("", "model.", "transformer.", "gpt_neox.")
"""What a file may leave out of a module's name: that of the part that has all blocks."""


def cannot_target(job: Job, facts: ModelFacts) -> str | None:
    """Return why what ``[adapter]`` names cannot be adapted, or None."""
    from forge_huggingface.facts.targets import is_pattern  # as below: only who names targets needs it

    asked = job.adapter.target_modules
    if asked in ("auto", "all-linear"):
        return None
    if isinstance(asked, str) and is_pattern(asked):
        return _unmatched([asked], facts)
    names = [asked] if isinstance(asked, str) else asked
    leaves = {name: name.rpartition(".")[2] for name in names}
    if "lm_head" in leaves.values():
        return "LoRA on lm_head would not be trained: TRL's loss reads its weight directly; use modules_to_save"
    whole = [name for name, leaf in leaves.items() if leaf in EMBEDDINGS]
    if whole and (why := _no_embedding(job, facts)):
        do = f"take it out, and write modules_to_save = {json.dumps(whole)}"
        return f"target_modules: {whole[0]}: {why}; {do}"
    return _unmatched([name for name in names if name not in whole], facts)


def _no_embedding(job: Job, facts: ModelFacts) -> str | None:
    """Return why LoRA cannot be on the embedding, or None."""
    if facts.shape is None or facts.shape.tied:
        return "it is an embedding that is the output layer too, or may be, and TRL's loss would pass by LoRA on that"
    if facts.task != "text":
        return "LoRA on an embedding has been tried with models of text alone"
    if job.adapter.use_dora or job.adapter.init_lora_weights not in {True, False, "gaussian"}:
        return "it is an embedding, of which LoRA has neither lengths nor another beginning"
    if job.model.new_tokens:
        return "its new rows are trained whole (add_tokens), and peft does not do both"
    return None


def _unmatched(names: Iterable[str], facts: ModelFacts) -> str | None:
    """Return which of some targets reach no layer of the files, or None."""
    from forge_huggingface.facts.targets import fits, is_pattern

    if facts.task != "text" or facts.shape is None:
        return None
    if facts.path is not None and not facts.quantized:
        there, others = _modules(Path(facts.path))
    elif facts.model_type in NAMED_AS_LLAMA:
        there, others = _named(facts.shape.layers)
    else:
        return None
    outside = [name for name in there if ".experts." not in name]
    leaves = sorted({name.rpartition(".")[2] for name in outside if any(part.isdigit() for part in name.split("."))})
    for target in names:
        key = target if is_pattern(target) else [target]
        if any(fits(key, prefix + name) for name in outside for prefix in PREFIXES):
            continue
        if any(fits(key, name) for name in there):
            return (
                f"target_modules: {target} fits experts of the mixture alone, which transformers keeps in one "
                'parameter for all; write target_parameters = ["experts"]'
            )
        if facts.shape.mixture is not False:
            continue  # transformers may call it so
        return f"target_modules: {target} {_other(target, outside, others, leaves)}"
    return None


def _other(target: str, there: Iterable[str], others: Iterable[str], leaves: Sequence[str]) -> str:
    """Return what a target is that is no layer which LoRA takes, and what to do."""
    inside = {name.rpartition(".")[2] for name in there if f".{target}." in f".{name}"}
    if inside:
        return f"is a block of several modules; name layers in it: {', '.join(sorted(inside))}"
    if any(name.rpartition(".")[2] == target for name in others):
        return f"is no layer that LoRA takes; train it whole: modules_to_save = {json.dumps([target])}"
    say = did_you_mean(target, leaves, 'take some of them, or "auto"')
    return f"fits no layer of the model; there are {', '.join(leaves)}; {say}"


def _named(layers: int) -> tuple[list[str], list[str]]:
    """Return the full names of the layers of a family that names them as Llama does, and of its norms."""
    parts = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    blocks = [f"model.layers.{layer}" for layer in range(layers)]
    there = [f"{block}.{part}.{leaf}" for block in blocks for part, leaves in parts.items() for leaf in leaves]
    return there, [f"{block}.{norm}" for block in blocks for norm in ("input_layernorm", "post_attention_layernorm")]


def _modules(folder: Path) -> tuple[list[str], list[str]]:
    """Return the full names of the layers in a model's files: with a matrix as their weight, and with another one."""
    from forge_huggingface.facts.safetensors import read_folder

    try:
        headers = read_folder(folder)
    except ModelError:  # whoever looks at the model tells
        return [], []
    found: tuple[list[str], list[str]] = [], []
    for header in headers:
        for name, extents in header.shapes.items():
            if name.endswith(".weight"):
                found[len(extents) != 2].append(name.removesuffix(".weight"))
    return found
