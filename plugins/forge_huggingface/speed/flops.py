"""How many floating-point operations a training takes of a model, by its shape.

A matrix of n weights takes 2 n of them for each token forward, 2 n backward for the gradient of its input, and 2 n for
that of its weights (Kaplan et al., arXiv 2001.08361, section 2.1: 6 n). A frozen matrix has no gradient of its weights:
under an adapter it takes 4 n, and the adapter's own matrices 6 n. Attention takes 2 · 2 · heads · width for each pair
of a token and one that it sees, forward, and twice that backward; a causal one sees half of the row (Chowdhery et al.,
arXiv 2204.02311, appendix B, which counts the whole row). What gradient checkpointing does again is not counted: it is
no work of the model's, and so lowers the share of the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge_huggingface.memory.footprint import adapted, chosen, reached

if TYPE_CHECKING:
    from forge.api import Job, ModelFacts, Shape


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of a training step, by token.

    Attributes:
        token: Of a token, whatever stands before it.
        pair: Of a token for each token of its row: attention.
    """

    token: float
    pair: float

    def of(self, tokens: float, length: float) -> float:
        """Return the operations of so many tokens in rows of a length.

        >>> Flops(token=10.0, pair=0.5).of(tokens=100, length=8)
        1400.0
        """
        return tokens * (self.token + length * self.pair)


REFERENCE = frozenset({"dpo"})
"""Methods that ask a frozen reference about each token too, unless it was asked before."""

POOLED = frozenset({"reward", "classification"})
"""Methods whose head reads a row, not each of its tokens."""

COUNTED = frozenset({"sft", *POOLED, *REFERENCE})
"""Methods of which each counted token goes through the model once forward and once backward; the others also answer."""


def flops(job: Job, facts: ModelFacts) -> Flops | None:
    """Return what training takes by token; None if it is not known for the model or the method.

    The output layer is counted for every token, and attention as if every layer saw the whole row: a model whose layers
    look through a window takes less on rows that are longer than it.
    """
    shape, method = facts.shape, job.train.method
    if shape is None or facts.task != "text" or method not in COUNTED:
        return None
    if shape.mixture is not False or any(linear.part != "language" for linear in shape.linears):
        return None  # of the experts a token sees a few
    body = sum(linear.parameters for linear in shape.linears)
    head = 0 if method in POOLED else shape.vocab * shape.hidden
    attention = 2 * shape.layers * shape.query  # of a pair, forward: half of 2 · 2 · query in each layer
    if job.adapter.type == "none":
        token, pair = 6.0 * (body + head), 3.0 * attention
    else:
        depth = _reached(shape, job)
        pairs = [] if job.adapter.leaves_model else adapted(shape, job.adapter)
        own = sum(count * rank * (linear.inputs + linear.outputs) for linear, count, rank in pairs)
        saved = {name.rpartition(".")[2] for name in job.adapter.modules_to_save or ()}
        whole = sum(linear.parameters for linear in shape.linears if linear.name in saved)
        whole += head if "lm_head" in saved else 0
        if job.adapter.type == "layers":
            whole += chosen(shape, job.adapter)
        token = 2.0 * (body + head) + 2.0 * (body * depth + head) + 6.0 * own + 2.0 * whole
        pair = attention * (1.0 + 2.0 * depth)
    if method in REFERENCE and not job.train.options.get("precompute_ref_log_probs"):
        token, pair = token + 2.0 * (body + head), pair + attention
    return Flops(token, pair)


def _reached(shape: Shape, job: Job) -> float:
    """Return the share of the layers that the backward pass goes through: down to the lowest one with an adapter."""
    layers = job.adapter.layers_to_transform
    if job.adapter.type == "layers":
        return reached(shape, job.adapter)
    return (shape.layers - min(layers)) / shape.layers if layers else 1.0
