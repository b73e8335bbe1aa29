"""Precision, as one decision: the type of the weights, of the arithmetic and of what is trained, and what cannot be.

Mixed precision in float16 multiplies the loss so that small gradients are not lost (arXiv 1710.03740), and torch undoes
that in float32 gradients only; so weights in float16 want ``fp16``, and whatever is trained under it is in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from forge.api import Decision, Problem
from forge_huggingface.rules.placement import capability, device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts

OVERFLOWING = frozenset({"gemma3", "gemma3_text", "gpt_oss", "qwen3_next"})
"""Types of models whose activations do not fit into float16, by transformers' names."""

TYPES = {"bf16": "bfloat16", "fp16": "float16"}
"""What is computed in, by the trainer's argument."""

_NOT_ON_MPS = "mixed precision is not reliable on Apple's GPUs"


@dataclass(frozen=True, slots=True)
class Precision:
    """How a job computes on a machine. LoRA's matrices are in float32 always, and so is all that ``fp16`` trains.

    Attributes:
        weights: The type of the weights in memory.
        why: Why, as a phrase.
        half: The trainer's argument for mixed precision; None for none.
        because: Why, as a phrase.
    """

    weights: str
    why: str
    half: Literal["bf16", "fp16"] | None
    because: str


def precision(machine: Machine, job: Job, facts: ModelFacts) -> Precision:
    """Return the precision of a job: what it says, and for the rest what fits it, the machine and the model."""
    half, because = _half(machine, job, facts)
    weights, why = _weights(machine, job, half)
    return Precision(weights, why, half, because)


def decide_precision(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the trainer's ``bf16`` and ``fp16`` where the job leaves them open."""
    options, found = job.train.options, precision(machine, job, facts)
    for name in ("bf16", "fp16"):
        if options.get(name) is None:
            why = found.because
            if found.half not in {None, name}:
                why = "the job names the other" if options.get(found.half) else f"{found.half} is taken: {why}"
            yield Decision(f"train.{name}", found.half == name, why)


def precision_problems(job: Job) -> Iterable[Problem]:
    """Yield what a job says of precision that cannot be on any machine."""
    options, dtype = job.train.options, job.model.dtype
    if dtype == "float16" and options.get("bf16"):
        yield Problem("train.bf16", 'it contradicts [model] dtype = "float16"', "write fp16 = true, or bfloat16")
    elif dtype == "bfloat16" and options.get("fp16"):
        yield Problem("train.fp16", 'it contradicts [model] dtype = "bfloat16"', "write bf16 = true, or float16")
    elif dtype == "float16" and job.adapter.leaves_model:
        yield Problem(
            "model.dtype",
            "all weights are trained, and the scaling of fp16 works on float32 only",
            'write dtype = "float32" and [train] fp16 = true, which computes in float16',
        )
    elif dtype == "float16" and options.get("fp16") is False:
        yield Problem("train.fp16", "without it small gradients of float16 weights are lost", "remove one of the two")


def cannot_compute(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why a machine cannot train a job in the precision that it names, or None."""
    options, kind, found = job.train.options, device(machine, job), precision(machine, job, facts)
    asked = next((name for name in TYPES if options.get(name)), None)
    if kind == "mps" and asked:
        return f"{asked}: {_NOT_ON_MPS}; leave it out, or write [model] load_in_16bit = true for weights in 16 bit"
    if kind is None and "float16" in {found.weights, TYPES.get(found.half or "")}:
        name = "fp16" if options.get("fp16") else 'dtype = "float16"'
        return f"{name}: float16 training needs a GPU; leave it out"
    if kind == "mps" and found.weights == "float16":
        return f'dtype = "float16": {_NOT_ON_MPS}, and float16 needs it; write "bfloat16", or leave it out'
    if kind and asked == "bf16" and not has_bf16(machine, kind):
        return "bf16: this GPU has no bfloat16; write fp16 = true, or leave both out"
    if kind == "cuda" and found.weights == "bfloat16" and not has_bf16(machine, kind):
        return 'dtype = "bfloat16": this GPU has none; write "float16", or leave it out'
    if facts.model_type in OVERFLOWING and "float16" in {found.weights, TYPES.get(found.half or "")}:
        name = "fp16" if options.get("fp16") else "float16 weights"
        return f"{name}: the activations of {facts.model_type} do not fit into float16; leave it out"
    if found.weights == "float16" and job.adapter.leaves_model and job.model.load_in_16bit:
        return "load_in_16bit: all weights are trained, and this GPU's 16 bit, float16, is too coarse; remove it"
    if options.get("tf32") and not (kind == "cuda" and capability(machine) >= 8.0):
        return "tf32: it is for NVIDIA GPUs of compute capability 8.0 or more; leave it out"
    return None


def cannot_attend(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why the attention implementation that a job names cannot be trained with, or None."""
    name, kind = job.model.attn_implementation, device(machine, job)
    if name == "flex_attention" and kind in {None, "mps"}:
        return f'attn_implementation = "{name}": torch has no backward pass of it here; leave it out'
    if not name.startswith("flash_attention_"):
        return None
    needed = _FLASH.get(name, 8.0)
    if kind not in {"cuda", "rocm"} or (kind == "cuda" and capability(machine) < needed):
        return f'attn_implementation = "{name}": it is for GPUs of compute capability {needed} or more; leave it out'
    found = precision(machine, job, facts)
    if found.weights == "float32" and found.half is None:
        return f'attn_implementation = "{name}": it computes in 16 bit only, and bf16 and fp16 are off; leave it out'
    return None


_FLASH = {"flash_attention_2": 8.0, "flash_attention_3": 9.0, "flash_attention_4": 9.0}


def has_bf16(machine: Machine, kind: str) -> bool:
    """Whether an accelerator of a kind computes in bfloat16."""
    return kind == "rocm" or (kind == "cuda" and capability(machine) >= 8.0)


def _half(machine: Machine, job: Job, facts: ModelFacts) -> tuple[Literal["bf16", "fp16"] | None, str]:
    options, kind, dtype = job.train.options, device(machine, job), job.model.dtype
    if options.get("bf16"):
        return "bf16", "the job says so"
    if options.get("fp16"):
        return "fp16", "the job says so"
    if kind is None:
        return None, "no GPU is used"
    if kind == "mps":
        return None, _NOT_ON_MPS
    if dtype == "float16":
        return "fp16", "the weights are to be float16"
    if not has_bf16(machine, kind) and facts.model_type in OVERFLOWING:
        return None, f"the GPU has no bfloat16, and the activations of {facts.model_type} do not fit into float16"
    half: Literal["bf16", "fp16"] = "bf16" if has_bf16(machine, kind) else "fp16"
    if options.get(half) is False:
        return None, f"the job says {half} = false"
    return half, "the GPU computes in bfloat16" if half == "bf16" else "the GPU has no bfloat16"


def _weights(machine: Machine, job: Job, half: Literal["bf16", "fp16"] | None) -> tuple[str, str]:
    kind = device(machine, job)
    if job.model.dtype != "auto":
        return job.model.dtype, "the job says so"
    whole = "bfloat16" if kind in {None, "mps"} or has_bf16(machine, str(kind)) else "float16"
    computed = TYPES[half] if half else whole
    if job.model.load_in_16bit:
        return computed, "the job says load_in_16bit"
    if kind is None:
        return "float32", "no GPU is used, and CPUs are fastest and exact in 32 bit"
    if kind == "mps":
        return "float32", _NOT_ON_MPS
    if job.adapter.leaves_model:
        why = "all weights are trained, and small updates vanish in 16 bit"
        return "float32", f"{why}; the arithmetic is {computed}" if half else why
    if computed == "float16" and half is None:
        return "float32", "float16 weights would need fp16, which is off"
    if job.model.bits:
        return computed, f"the {job.model.bits} base is unpacked to it for each computation"
    return computed, "the frozen base needs no more, and the adapter is kept in 32 bit"
