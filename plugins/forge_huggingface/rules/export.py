"""What can be said about exports before training."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import ForgeError, Problem
from forge_huggingface.facts.grouped import MLX
from forge_huggingface.facts.lookup import NOT_LOGGED_IN, token
from forge_huggingface.rules.quantised import widens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts


NO_ADAPTER = "there is no adapter to export: its [adapter] type trains weights of the model itself"


def cannot_merge(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why an adapter could not be merged after training, or None."""
    if facts.quantized and facts.quantized.startswith(MLX):
        why = f"the base is stored in {facts.quantized}, which transformers does not read"
        return f'{why}; format = "mlx" writes the merged model in 16 bit, or export the adapter'
    named = [each.options.get("base_model") for each in job.export if each.format == "merged"]
    if not facts.quantized or widens(machine, job, facts):
        return "base_model: it is for a base that is stored quantised; remove it" if any(named) else None
    if facts.quantized == "awq":
        why = "AWQ scales what goes into its layers, and the adapter has learnt on that: it fits no 16-bit model"
        return f"{why}; export the adapter"
    if not all(named):
        meant = original_name(facts)
        do = f'base_model = "{meant or "ID"}", the 16-bit model that it was made from'
        return f"the base is stored in {facts.quantized}, and merging would round the adapter away; write {do}"
    return next((reason for name in named if name and (reason := unlike(name, job, facts))), None)


def original_name(facts: ModelFacts) -> str | None:
    """Return what a quantised model says that it was made from: its card, or its name as Unsloth gives them."""
    if facts.path is not None and (card := Path(facts.path) / "README.md").is_file():
        head = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
        if told := re.search(r"^base_model:\s*(?:\n\s*-\s*)?[\"']?([\w.-]+/[\w.-]+)", head, re.MULTILINE):
            return told[1]
    cut = re.fullmatch(r"(unsloth/.+?)(-unsloth)?-bnb-[48]bit", facts.id)
    return cut[1] if cut else None


def unlike(name: str, job: Job, facts: ModelFacts) -> str | None:
    """Return why a model is not the one that a quantised one was made from, as their configs tell, or None."""
    from forge_huggingface.facts.describe import describe  # only who names one needs it

    try:
        other = describe(name, None, job.folder)
    except ForgeError as error:
        return f"base_model: {error.what}" + (f": {error.why}" if error.why else "")
    if other.quantized:
        return f"base_model: {name} is stored in {other.quantized} too; name the 16-bit model that it was made from"
    one, two = facts.shape, other.shape
    sizes = [(shape.layers, shape.hidden, shape.query, shape.key) for shape in (one, two) if shape is not None]
    if (other.model_type and other.model_type != facts.model_type) or (len(sizes) == 2 and sizes[0] != sizes[1]):
        return f"base_model: {name} is another model than {facts.id}: its config.json has another family or other sizes"
    return None


def without_login(where: str) -> Iterable[Problem]:
    """Yield that nobody is logged in to upload; of a plan for another machine, its login counts."""
    if not token() and not os.environ.get("FORGE_MACHINE"):
        yield Problem(where, *NOT_LOGGED_IN)


def export_problems(job: Job) -> Iterable[Problem]:
    """Yield exports that cannot be."""
    for index, export in enumerate(job.export):
        if export.push_to_hub:
            yield from without_login(f"export.{index}.push_to_hub")
        if export.format == "adapter" and job.adapter.leaves_model:
            yield Problem(f"export.{index}.format", NO_ADAPTER, 'write format = "merged"')
