"""Attention, and with it whether the rows of a batch are padded, as one decision.

Rows that lie end to end need no padding, but attention must keep them apart: by their boundaries, which costs nothing,
or by a mask of all pairs of tokens, which costs more than the padding did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision
from forge_huggingface.rules.placement import capability, device
from forge_huggingface.rules.precision import precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts

APART = frozenset(
    {
        "cohere",
        "cohere2",
        "gemma",
        "gemma3_text",
        "glm",
        "glm4",
        "granite",
        "helium",
        "llama",
        "ministral",
        "ministral3",
        "mistral",
        "olmo",
        "olmo2",
        "olmo3",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "starcoder2",
    }
)
"""Families whose tokens meet in attention alone, which they call by transformers' interface and with nothing that
torch's kernel lacks: no cap on its scores, no sinks, no mixture whose balance is counted over the batch."""

NAME = "varlen"
"""What the job, the plan and transformers call attention by boundaries."""

VARLEN = "2.11"
"""The first torch whose kernel for rows of unequal length takes a window, and so looks back only."""

WIDEST = 256
"""The widest head that the kernel takes."""

ROWS = "rows lie end to end"


def cannot_varlen(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why attention by boundaries is not to be taken by itself, or None."""
    kind, found = device(machine, job), precision(machine, job, facts)
    if facts.model_type not in APART:
        return f"forge does not know that {facts.model_type or 'the model'} keeps rows apart by boundaries"
    if kind is None:
        return None  # a call for each row
    if kind != "cuda" or capability(machine) < 8.0:
        return "attention by boundaries is for NVIDIA GPUs of compute capability 8.0 or more"
    if not has_varlen(machine):
        return f"torch is older than {VARLEN}, and has no attention by boundaries"
    if found.weights == "float32" and found.half is None:
        return "attention by boundaries computes in 16 bit only"
    if facts.shape is None or facts.shape.head_dim > WIDEST or facts.shape.head_dim % 8:
        return f"attention by boundaries takes heads of up to {WIDEST}, and of a multiple of 8"
    return None


def has_varlen(machine: Machine) -> bool:
    """Whether torch has the kernel."""
    from packaging.version import InvalidVersion, Version  # listing plugins does not need it

    try:
        return Version(machine.versions.get("torch", "0")) >= Version(VARLEN)
    except InvalidVersion:
        return False


def lays_rows(job: Job, facts: ModelFacts) -> bool:
    """Whether a job's batches are of a kind whose rows can lie end to end."""
    return job.train.method == "sft" and facts.task == "text" and (job.data.packing or not noisy(job))


def noisy(job: Job) -> bool:
    """Whether NEFTune's noise is put on the embeddings.

    It shrinks with the length of what the model reads at once (arXiv 2310.05914), which would be the whole batch.
    """
    return bool(job.train.options.get("neftune_noise_alpha"))


def decide_attention(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield how attention is computed, and whether the rows of a batch lie end to end, where the job leaves it open."""
    name, kind = job.model.attn_implementation, device(machine, job)
    why = "the job says so"
    if name == "auto":
        found = precision(machine, job, facts)
        capable = kind == "cuda" and capability(machine) >= 8.0 and found.weights != "float32"
        name, why = "sdpa", "torch's own, fast on every device"
        asked = job.data.packing or job.data.padding_free
        wanted = asked or (kind is not None and job.data.padding_free is not False)
        if capable and "flash-attn" in machine.versions:
            name, why = "flash_attention_2", "flash-attn is installed"
        elif wanted and lays_rows(job, facts) and cannot_varlen(machine, job, facts) is None:
            name, why = NAME, f"{ROWS}, and their boundaries keep them apart without a mask"
        yield Decision("model.attn_implementation", name, why)
    if job.data.padding_free is None and lays_rows(job, facts) and not job.data.packing:
        bounded = name == NAME or name.startswith("flash_attention")
        if kind is None:
            yield Decision(
                "data.padding_free", False, "no GPU is used, and the kernel that keeps rows apart is for GPUs"
            )
        elif bounded and facts.model_type in APART:
            yield Decision("data.padding_free", True, f"{name} keeps rows apart, so none need be filled up")
        else:
            mask = f"{name} would need a mask of all pairs of tokens"
            reason = cannot_varlen(machine, job, facts) or mask if why != "the job says so" else mask
            yield Decision("data.padding_free", False, reason)
    elif noisy(job) and job.data.padding_free is None and not job.data.packing and job.train.method == "sft":
        yield Decision("data.padding_free", False, "NEFTune's noise goes by the length of a row, not of a batch")
