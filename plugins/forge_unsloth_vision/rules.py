"""What can be said about Unsloth and a vision job before anything is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_unsloth.rules import (
    cannot_arguments,
    cannot_machine,
    cannot_method,
    cannot_model,
    cannot_spread,
    named,
)

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts

COMPARED_IN_4_BIT = frozenset({"qwen3_vl"})
"""Those of :data:`COMPARED` that train alike in 4 bit too, now that adapters are in float32 on both."""

FAMILIES = frozenset(
    {
        "gemma3",
        "llava",
        "llava_next",
        "mistral3",
        "mllama",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_vl",
        "qwen3_vl_moe",
    }
)
"""Families of vision models, by ``model_type``, that Unsloth names or publishes models of."""

COMPARED = frozenset({"qwen2_5_vl", "qwen3_vl"})
"""Families that trained alike in 16 bit on Unsloth and on transformers, on a GPU: ``benchmarks/gpu_vision.py``."""


def cannot_vision(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why Unsloth cannot load, adapt and train a vision model as the job says, or None."""
    return (
        cannot_machine(machine)
        or cannot_spread(job)
        or _cannot_family(facts)
        or _not_compared(job, facts)
        or cannot_method(job, "unsloth-vision")
        or cannot_arguments(job)
        or cannot_model(machine, job, facts)
        or _cannot_adapt(job)
    )


def cannot_collate(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why Unsloth's collator cannot be used, or None."""
    if job.use.collate != "unsloth-vision":
        return 'it makes other batches than forge\'s own; name it ([use] collate = "unsloth-vision") to take it'
    if job.data.streaming or job.data.packing:
        return "it takes neither streamed nor packed rows"
    if job.data.train_on not in {"auto", "assistant"}:
        return f'it trains on every answer; train_on = "{job.data.train_on}" cannot be'
    if job.data.tools is not None or job.data.variables:
        return "it renders the rows itself, and tells the template neither tools nor chat_template_kwargs; remove them"
    return cannot_vision(machine, job, facts)


def _cannot_family(facts: ModelFacts) -> str | None:
    if facts.task not in {"vision", "unknown"}:
        return f"the model's task is {facts.task}; this plugin is for vision"
    if facts.model_type is not None and facts.model_type not in FAMILIES:
        return f"Unsloth does not list the vision architecture {facts.model_type}"
    return None


def _not_compared(job: Job, facts: ModelFacts) -> str | None:
    """Return why Unsloth is not taken unless the job names it: nobody has shown that it trains alike."""
    if named(job, "unsloth-vision"):
        return None
    take = 'name Unsloth in [use] backend = "unsloth" to take it'
    if facts.model_type is not None and facts.model_type not in COMPARED:
        return f"forge has not compared {facts.model_type} on Unsloth and on transformers yet; {take}"
    if job.model.bits and not (job.model.bits == "4bit" and facts.model_type in COMPARED_IN_4_BIT):
        return f"forge has not compared Unsloth and transformers on vision models in {job.model.bits} yet; {take}"
    return None


def _cannot_adapt(job: Job) -> str | None:
    table = job.adapter
    if table.type == "none" and table.parts:
        return "finetune_vision_layers with all weights: Unsloth trains the whole model"
    if table.type != "lora":
        return None
    if table.modules_to_save:
        return "modules_to_save: forge has not tried it with Unsloth's vision models"
    if table.bias != "none":
        return f'bias = "{table.bias}": Unsloth has no kernels for it'
    return None
