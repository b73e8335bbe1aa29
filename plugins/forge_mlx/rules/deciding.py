"""What is taken where a job leaves it open, each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision
from forge_huggingface.rules.data import decide_rows
from forge_huggingface.rules.training import decide_training as decide_as_transformers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts

OTHERWISE = frozenset({"train.bf16", "train.fp16", "train.kernels", "train.loss_type"})
"""What huggingface decides for torch."""


def decide_weights(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the type of the weights, where the job leaves it open."""
    if job.model.dtype == "auto":
        yield Decision("model.dtype", *_dtype(machine, job, facts))
    if job.model.attn_implementation == "auto":
        yield Decision("model.attn_implementation", "sdpa", "MLX's own")
    if job.data.padding_free is None and job.train.method == "sft" and not job.data.packing:
        yield Decision("data.padding_free", False, "with MLX short rows are filled up at the right")
    yield from decide_rows(machine, job, facts)


def _dtype(machine: Machine, job: Job, facts: ModelFacts) -> tuple[str, str]:
    if job.model.load_in_16bit:
        return "bfloat16", "the job says load_in_16bit"
    if job.adapter.type == "none":
        return "float32", "all weights are trained, and small updates vanish in 16 bit"
    if facts.quantized:
        if machine.platform == "darwin" and facts.dtype == "bfloat16":
            return "bfloat16", "the base stays in MLX's groups as it is stored, and is unpacked to it"
        why = f"rounding its scales, stored in {facts.dtype or 'an unknown type'}, would make another base of it"
        return "float32", why if machine.platform == "darwin" else "the base stays in MLX's groups, unpacked to it"
    if job.model.bits:
        dtype = "bfloat16" if machine.platform == "darwin" else "float32"
        return dtype, f"the base is in {job.model.bits} in MLX's own groups, not in bitsandbytes', and unpacked to it"
    if machine.platform == "darwin":
        return "bfloat16", "the frozen base needs no more, and the adapter is kept in 32 bit"
    return "float32", "MLX computes on the processor here, exact in 32 bit"


def decide_training(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the learning rate and when to evaluate, as huggingface decides them; there is no mixed precision."""
    for name in ("bf16", "fp16"):
        if job.train.options.get(name) is None:
            yield Decision(f"train.{name}", False, "MLX computes in the type of the weights")
    if job.train.method == "sft" and job.train.options.get("loss_type") is None:
        yield Decision("train.loss_type", "nll", "negative log-likelihood")
    for decision in decide_as_transformers(machine, job, facts):
        if decision.key not in OTHERWISE:
            yield decision
