"""How much memory a job will take with MLX: what its layers keep and its loss needs, from measurements.

They are of MLX 0.32 on a processor, by its own allocator's peak: Llamas of 2 to 8 layers, 64 to 256 wide, in 32 and 16
bit, with LoRA and without (docs/mlx.md). MLX's attention keeps all scores for its backward pass, and LoRA's inputs are
turned to 32 bit. No Mac has been measured.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from forge_huggingface.memory.estimate import forecast
from forge_huggingface.memory.fit import fitted
from forge_huggingface.memory.kernels import Kernels

if TYPE_CHECKING:
    from forge.api import Estimate, Job, Machine, ModelFacts
    from forge_huggingface.memory.footprint import Setting

LOGIT = 16
"""Bytes of a logit, of which all are there at once: in 32 bit, with its gradient and what that is made of."""


def estimate(machine: Machine, job: Job, facts: ModelFacts, *, longest: int | None = None) -> Estimate | None:
    """Return what training takes with MLX; see :func:`forge_huggingface.memory.estimate.estimate`."""
    return forecast(machine, job, facts, KERNELS, longest=longest)


def kept(s: Setting) -> float:
    """Return the bytes a token that one layer keeps for its backward pass."""
    shape = s.shape
    stream = (28 if s.size == 4 else 32) if s.lora else 34
    inner = 4 + 3.75 * s.size if s.lora else 5 * s.size
    return stream * shape.hidden + inner * shape.intermediate + 17 * shape.key + 1.3 * s.size * shape.heads * s.length


def worked(s: Setting) -> float:
    """Return the bytes a token that the backward pass of a layer needs beside what is kept."""
    shape = s.shape
    return (32 if s.size == 4 else 41) * shape.hidden + (28 if s.size == 4 else 33) * shape.intermediate


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


KERNELS = Kernels(kept, worked, scores, boundary, fused)

fit = partial(fitted, kernels=KERNELS)
"""What memory decides with MLX: see :func:`forge_huggingface.memory.fit.fitted`."""
