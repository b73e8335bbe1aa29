"""How much memory a job will take with MLX: what its layers keep and its loss needs, from measurements.

They are of MLX 0.32 on a processor, by its own allocator's peak: Llamas of 2 to 8 layers, 64 to 256 wide, in 32 and 16
bit, on bases of 4, 8 and 16 bit, with LoRA, DoRA and without (docs/benchmarks.md). MLX's attention keeps all scores for
its backward pass, and LoRA's inputs are turned to 32 bit. No Mac has been measured.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from forge_huggingface.memory import footprint
from forge_huggingface.memory.estimate import forecast
from forge_huggingface.memory.fit import fitted
from forge_huggingface.memory.kernels import Kernels

if TYPE_CHECKING:
    from forge.api import Estimate, Job, Machine, ModelFacts
    from forge_huggingface.memory.footprint import Setting

MEASURED = "as measured on MLX's CPU build, not on a Mac"
"""What is said of the estimate."""

GROUP = 64
"""Weights that have a scale in common, as they are rounded here; mlx-community's are, too, but for few."""

LOGIT = 16
"""Bytes of a logit, of which all are there at once: in 32 bit, with its gradient and what that is made of."""


def estimate(machine: Machine, job: Job, facts: ModelFacts, *, longest: int | None = None) -> Estimate | None:
    """Return what training takes with MLX; see :func:`forge_huggingface.memory.estimate.estimate`."""
    found = forecast(machine, unpaged(job), facts, KERNELS, longest=longest)
    if found is None:
        return None
    parts = (
        replace(part, note=f"{part.note}; {MEASURED}") if part.name == "activations" else part for part in found.parts
    )
    return replace(found, parts=tuple(parts))


def unpaged(job: Job) -> Job:
    """Return a job without pages: where memory is one, an optimizer's states stay in it."""
    name = str(job.train.options.get("optim"))
    if not name.startswith("paged_"):
        return job
    plain = "lion_32bit" if "lion" in name else "adamw_torch"
    return job.model_copy(update={"train": job.train.model_copy(update={"optim": plain})})


def weights(s: Setting) -> int:
    """Return the bytes of the base as MLX has it: few bits, and for 64 weights a scale and an offset in its type."""
    scales = 2 * s.stream / GROUP
    if s.stored and s.facts.weight_bytes:
        # Files have scales in 16 bit, which are widened with the type of the base.
        return s.facts.weight_bytes + round(footprint.total(s) * (scales - 4 / GROUP))
    if s.job.model.bits is None:
        return footprint.weights(s)
    small = sum(linear.parameters for linear in s.shape.linears)
    each = int(s.job.model.bits.removesuffix("bit")) / 8 + scales
    return round(small * each) + (footprint.total(s) - small) * s.stream


def kept(s: Setting) -> float:
    """Return the bytes a token that one layer keeps for its backward pass."""
    shape = s.shape
    stream = (28 if s.size == 4 else 32) if s.lora else 34
    inner = 4 + 3.75 * s.size if s.lora else 5 * s.size
    dora = 0.0
    if s.lora and s.job.adapter.use_dora:  # of each adapted layer what the base and the adapter give, in 32 bit
        layers = footprint.adapted(shape, s.job.adapter)
        dora = sum(8 * linear.outputs * count for linear, count, _ in layers) / shape.layers
    scores = 1.3 * s.size * shape.heads * s.length
    return stream * shape.hidden + inner * shape.intermediate + 17 * shape.key + scores + dora


def worked(s: Setting) -> float:
    """Return the bytes a token that the backward pass of a layer needs beside what is kept."""
    shape = s.shape
    # Where activations are made again, those of a second layer are there already.
    second = (1 if s.size == 4 else 1.3) * kept(s) if s.checkpointing else 0
    return second + (32 if s.size == 4 else 41) * shape.hidden + (28 if s.size == 4 else 33) * shape.intermediate


def scores(s: Setting) -> int:
    """Return the bytes of the loss: all logits, while the first layer on the way back is worked on already."""
    count = s.rows * s.scored
    return round(LOGIT * s.shape.vocab * count + worked(s) * count)


def boundary(s: Setting) -> float:
    """Return the bytes a token of the stream that enters a layer."""
    return s.stream * s.shape.hidden


def fused(job: Job, since: bool) -> bool:  # noqa: ARG001 - the signature of all backends
    """Return that the loss holds all logits."""
    return False


KERNELS = Kernels(kept, worked, scores, boundary, fused, weights)

fit = partial(fitted, kernels=KERNELS)
"""What memory decides with MLX: see :func:`forge_huggingface.memory.fit.fitted`."""
