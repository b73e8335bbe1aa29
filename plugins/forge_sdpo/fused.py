"""The loss of a batch from its hidden states, a few tokens at a time.

A vocabulary of 150,000 tokens makes 0.6 MB of logits a token, of student and teacher each, with several copies in the
backward pass: 4,096 tokens would take more memory than the model. So both language-model heads run here in chunks,
and each chunk's gradient with respect to the hidden states is taken in the forward pass, when its logits are at hand,
as Liger-Kernel's fused losses do. Nothing of the size of the vocabulary outlives its chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from forge_sdpo.objective import policy, ratio, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge_sdpo.objective import Objective

CHUNK = 2**24
"""Logits of a chunk: 64 MiB in float32, about five times of which are alive at the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens that a batch trains on, those with a teacher first.

    Attributes:
        labels: The sampled tokens, (tokens,).
        taught: How many of them, from the first, have a teacher.
        teacher: Returns the teacher's logits of the tokens from one index to another, both below ``taught``.
        distill: What each token's divergence counts, (tokens,).
        policy: What each token's part of the policy loss counts, (tokens,); None without a policy loss.
        advantages: (tokens,), if there is a policy loss.
        old: The log-probabilities when the rollout was written, (tokens,); None if that was this very policy.
    """

    labels: Any
    taught: int
    teacher: Callable[[int, int], Any] | None
    distill: Any
    policy: Any | None = None
    advantages: Any | None = None
    old: Any | None = None


@dataclass(slots=True)
class Tally:
    """What the tokens came to: (tokens,) each, in the order of :class:`Tokens`; the last two of those taught only."""

    logps: list[Any] = field(default_factory=list)
    entropy: list[Any] = field(default_factory=list)
    divergence: list[Any] = field(default_factory=list)
    gain: list[Any] = field(default_factory=list)


def loss(hidden: Any, head: Callable[[Any], Any], parameters: list[Any], tokens: Tokens, objective: Objective) -> Any:
    """Return the loss, a scalar with a gradient, and a :class:`Tally`.

    Args:
        hidden: The student's last hidden states where the tokens were sampled, (tokens, hidden size).
        head: Makes logits of hidden states.
        parameters: The head's trained parameters; they get their gradient too.
        tokens: The tokens.
        objective: What is computed of them.
    """
    tally = Tally()
    chunks = _Chunks(head, tokens, objective, tally, differentiate=torch.is_grad_enabled())
    return _Fused.apply(hidden, chunks, *parameters), tally


@dataclass(frozen=True, slots=True)
class _Chunks:
    head: Callable[[Any], Any]
    tokens: Tokens
    objective: Objective
    tally: Tally
    differentiate: bool

    def bounds(self, vocabulary: int) -> Iterator[tuple[int, int, bool]]:
        """Yield from, to, and whether there is a teacher."""
        size, count = max(1, CHUNK // vocabulary), len(self.tokens.labels)
        for start, stop in ((0, self.tokens.taught), (self.tokens.taught, count)):
            for first in range(start, stop, size):
                yield first, min(first + size, stop), start == 0

    def chunk(self, hidden: Any, first: int, last: int, *, taught: bool, unit: Any) -> Any:
        """Return one chunk's part of the loss, divided by ``unit``."""
        tokens, objective = self.tokens, self.objective
        part = slice(first, last)
        teacher = tokens.teacher(first, last) if taught and tokens.teacher else None
        scored = score(self.head(hidden), teacher, tokens.labels[part], objective)
        old = None if tokens.old is None else tokens.old[part]
        total = 0 * scored.logps.sum()
        self.tally.logps.append(scored.logps.detach())
        self.tally.entropy.append(scored.entropy)
        if scored.divergence is not None and scored.gain is not None:
            self.tally.divergence.append(scored.divergence.detach())
            self.tally.gain.append(scored.gain)
            weight = tokens.distill[part] / unit * ratio(scored.logps, old, objective.is_clip)
            total = total + (weight * scored.divergence).sum()
        if tokens.policy is not None and tokens.advantages is not None:
            each = policy(scored.logps, old, tokens.advantages[part], objective.epsilon)
            total = total + (tokens.policy[part] / unit * each).sum()
        return total


class _Fused(torch.autograd.Function):  # type: ignore[misc]  # torch is Any to mypy: see pyproject
    """Takes gradients while it computes the loss; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, chunks: _Chunks, *parameters: Any) -> Any:
        tokens = chunks.tokens
        weights = tokens.distill if tokens.policy is None else torch.cat([tokens.distill, tokens.policy])
        # Weights are about 1 / tokens: without this, float16 gradients would vanish before the backward pass scales.
        unit = weights.abs().amax().clamp(min=torch.finfo(torch.float32).tiny) if len(weights) else 1.0
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=wide, device=hidden.device)
        slopes = torch.zeros(hidden.shape, dtype=wide, device=hidden.device) if chunks.differentiate else None
        sums = [torch.zeros(p.shape, dtype=wide, device=p.device) for p in parameters] if chunks.differentiate else []
        with torch.no_grad():
            vocabulary = chunks.head(hidden[:1]).shape[-1] if len(hidden) else 1
        for first, last, taught in chunks.bounds(vocabulary):
            # Tokens that nothing is learnt from are only looked at.
            matters = chunks.differentiate and (taught or tokens.policy is not None)
            with torch.set_grad_enabled(matters):
                piece = hidden[first:last].detach().requires_grad_(matters)
                value = chunks.chunk(piece, first, last, taught=taught, unit=unit)
            total += value.detach().to(wide)
            if matters and slopes is not None:
                found = torch.autograd.grad(value, [piece, *parameters], allow_unused=True)
                slopes[first:last] = found[0]
                for held, slope in zip(sums, found[1:], strict=True):
                    if slope is not None:
                        held += slope
        ctx.unit = unit
        ctx.kinds = [hidden.dtype, *(p.dtype for p in parameters)]
        ctx.save_for_backward(*([slopes, *sums] if slopes is not None else []))
        return total * unit

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        found = [(slope * (grad * ctx.unit)).to(kind) for slope, kind in zip(ctx.saved_tensors, ctx.kinds, strict=True)]
        return found[0], None, *found[1:]
