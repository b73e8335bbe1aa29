"""How much memory a job will take under Unsloth, whose kernels keep less of a layer than transformers' do.

Read from what unsloth 2026.10.7 saves for its backward passes, and compared with peaks on an H200 (docs/memory.md).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from forge_huggingface.memory import footprint, kernels
from forge_huggingface.memory.estimate import forecast
from forge_huggingface.memory.fit import fitted
from forge_huggingface.memory.footprint import Setting
from forge_huggingface.memory.kernels import Kernels

if TYPE_CHECKING:
    from forge.api import Estimate, Job, Machine, ModelFacts

FUSED = frozenset({"sft", "grpo"})
"""Methods whose loss Unsloth makes in chunks; for the others TRL's own is taken."""

CHUNK_BYTES = 16
"""What Unsloth reckons a logit to take when it chooses how many chunks the loss is made in."""

CHUNK_LIMIT = 4 * 2**30
"""The most that it plans for a chunk; less where half of the free memory is less."""


def estimate(machine: Machine, job: Job, facts: ModelFacts, *, longest: int | None = None) -> Estimate | None:
    """Return what training takes with Unsloth; see :func:`forge_huggingface.memory.estimate.estimate`."""
    return forecast(machine, job, facts, KERNELS, longest=longest)


def kept(s: Setting) -> float:
    """Return the bytes a token that autograd keeps of one layer.

    The norms keep their input in 16 bit, the adapters of one input share it, and SwiGLU keeps gate and up only.
    """
    shape, e = s.shape, s.size
    h, i, q, k = shape.hidden, shape.intermediate, shape.query, shape.key
    if not s.lora or s.facts.task == "vision":
        return kernels.kept(s)  # these go through transformers' own layers, which Unsloth compiles
    norms = e * shape.norms * h + shape.head_norms * e * (q + k)
    return norms + e * 2 * h + e * (2 * q + 2 * k) + 4 * shape.heads + e * q + e * 2 * i


def worked(s: Setting) -> float:
    """Return the bytes a token that the backward pass of a layer needs beside; in 4 bit, two unpacked matrices too."""
    h, i = s.shape.hidden, s.shape.intermediate
    unpacked = 2 * 2 * h * max((x.outputs for x in s.shape.linears), default=0) if s.job.model.load_in_4bit else 0
    return 2 * s.size * i + 3 * s.size * h + unpacked / s.tokens


def scores(s: Setting) -> int:
    """Return the bytes of a chunk of the loss: logits in 32 bit, the gradient over them, and a fifth for the rest."""
    count, vocab = s.rows * s.scored, s.shape.vocab
    stream = 3 * s.size * s.shape.hidden * count
    if not s.head:
        return stream
    if s.job.train.method not in FUSED:
        return kernels.scores(s)
    free = (s.room or 80 * 2**30) - footprint.weights(s)
    target = max(min(free / 2, CHUNK_LIMIT), 2**28)
    pieces = count * vocab * CHUNK_BYTES / target
    chunks = 1 if pieces <= 1 else 4 * -(-int(pieces * 1000) // 4000)
    return round(4.75 * vocab * count / chunks) + stream


def boundary(s: Setting) -> float:
    """Return 0: what gradient checkpointing keeps between two layers goes to main memory."""
    return 0.0 if s.lora else kernels.boundary(s)


def fused(job: Job, since: bool) -> bool:
    """Return whether the loss never holds all logits."""
    return job.train.method in FUSED or kernels.fused(job, since)


KERNELS = Kernels(kept, worked, scores, boundary, fused)

fit = partial(fitted, kernels=KERNELS, some=False)
"""What memory decides with Unsloth, which recomputes all layers or none: see
:func:`forge_huggingface.memory.fit.fitted`."""
