"""What a training takes of the computer's memory. It is asked while forge plans: nothing heavy is imported.

Compared with measured peaks of Llamas of 20 and 33 million parameters, the sum of all tensors is right to a few
hundredths. What the process takes is not: the C library keeps freed memory, of LoRA's many middle-sized tensors up to as
much again. So the estimate is a lower bound, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Estimate, Part

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts, Shape

FLOAT = 4
"""Bytes of a number."""

LIBRARIES = 370 * 2**20
"""What torch, transformers and peft take once they are imported."""


def estimate(machine: Machine, job: Job, facts: ModelFacts, *, longest: int | None = None) -> Estimate | None:
    """Return what a training takes; None if nothing is known of the model."""
    shape = facts.shape
    if shape is None or facts.parameters is None:
        return None
    rows, length = job.train.options["per_device_train_batch_size"], longest or job.model.max_seq_length
    tokens = rows * length
    count = trained(job, shape, facts.parameters)
    parts = (
        Part("weights", FLOAT * facts.parameters, "estimated", "in float32"),
        Part("gradients", FLOAT * count, "estimated"),
        Part("optimizer", 2 * FLOAT * count, "estimated", "AdamW's two means"),
        Part("activations", FLOAT * tokens * kept(job, shape), "estimated"),
        Part("logits", 3 * FLOAT * tokens * shape.vocab, "estimated", "with their gradient"),
        Part("allocator", None, "unknown", "what it keeps of freed memory: up to as much as all tensors"),
    )
    peak = sum(part.bytes or 0 for part in parts)
    return Estimate(
        parts=parts,
        peak=peak,
        process=peak + LIBRARIES,
        device="the processor",
        room=machine.memory,
        batch=f"{rows} rows of {length} tokens",
    )


def trained(job: Job, shape: Shape, parameters: int) -> int:
    """Return how many parameters are trained; of LoRA, where it is on all linear layers."""
    if job.adapter.type == "none":
        return parameters
    names = job.adapter.target_modules
    layers = [each for each in shape.linears if isinstance(names, str) or each.name in names]
    return sum(job.adapter.r * (each.inputs + each.outputs) * each.count for each in layers)


def kept(job: Job, shape: Shape) -> int:
    """Return how many numbers a token leaves for the way back: what norms, attention and feed-forward were given."""
    if job.train.options["gradient_checkpointing"]:
        return shape.layers * shape.hidden + block(shape)
    return shape.layers * block(shape)


def block(shape: Shape) -> int:
    """Return the same for one of the repeated blocks."""
    return 6 * shape.hidden + 4 * shape.heads * shape.head_dim + 4 * shape.intermediate
