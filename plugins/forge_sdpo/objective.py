"""The objective of SDPO: how far the student's next-token distribution is from its teacher's, token by token.

Source of the formulas: "Reinforcement Learning via Self-Distillation" (arXiv 2601.20802), section 3 and appendix A, and
the code that its authors published (lasgroup/SDPO, ``core_algos.py``). S is the student's distribution at a position
of its own rollout, T the teacher's at the same position; T is a constant. Both are taken at the temperature of the
rollouts. Everything is computed in logarithms, in float32, or in the logits' type if that is wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

TAIL_CEILING = -1e-7
"""The log-probability of the top K is held below this, so that the tail's is finite (the authors' bound)."""

RATIO_BOUND = 20.0
"""Bound of the logarithm of an importance ratio, before it is clipped (the authors' bound)."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Which divergence, over which part of the vocabulary.

    Attributes:
        alpha: 0 is the forward divergence KL(T‖S), 1 the reverse KL(S‖T) (the paper's eq. 1), and between them lies the
            generalised Jensen-Shannon divergence. Its end points are no limits of the middle: that goes to 0 at both.
        topk: The K tokens that the student finds likeliest, or None for the whole vocabulary.
        tail: With ``topk``: the rest of the vocabulary is one more token. Without it, both distributions are
            renormalised over the K tokens.
        sampled: Only the sampled token: the policy gradient with log T/S as its advantage, which is the gradient of
            the reverse divergence in expectation.
        temperature: What logits are divided by.
        is_clip: Upper bound of the importance ratio between the student now and when it wrote the rollout; None for no
            correction.
        policy_weight: λ of the paper's eq. 3: the share of the GRPO advantage.
        epsilon: How far the ratio of the policy's part may go below and above 1, as PPO clips it.
    """

    alpha: float = 0.5
    topk: int | None = 100
    tail: bool = True
    sampled: bool = False
    temperature: float = 1.0
    is_clip: float | None = 2.0
    policy_weight: float = 0.0
    epsilon: tuple[float, float] = (0.2, 0.2)


@dataclass(frozen=True, slots=True)
class Scored:
    """What one set of tokens came to; each tensor has one value a token.

    Attributes:
        logps: The student's log-probability of the sampled token; it carries a gradient.
        entropy: The student's entropy in nats, without a gradient.
        divergence: What is minimised, before any weight; None without a teacher. With ``sampled`` only its gradient
            means something.
        gain: log T - log S of the sampled token, without a gradient; None without a teacher.
    """

    logps: Any
    entropy: Any
    divergence: Any | None = None
    gain: Any | None = None


def score(student: Any, teacher: Any | None, labels: Any, objective: Objective) -> Scored:
    """Compare the student with its teacher.

    Args:
        student: The student's logits, (tokens, vocabulary).
        teacher: The teacher's, of the same shape; no gradient flows into them. None where there is no teacher.
        labels: The sampled tokens, (tokens,).
        objective: What to compute.
    """
    student = widened(student) / objective.temperature
    normaliser = student.logsumexp(-1, keepdim=True)
    logps = (student.gather(-1, labels[:, None]) - normaliser)[:, 0]
    with torch.no_grad():
        every = student - normaliser
        entropy = -(every.exp() * every).sum(-1)
        del every
    if teacher is None:
        return Scored(logps, entropy)
    teacher = widened(teacher.detach()) / objective.temperature
    anchor = teacher.logsumexp(-1, keepdim=True)
    gain = (teacher.gather(-1, labels[:, None]) - anchor)[:, 0] - logps.detach()
    if objective.sampled:
        return Scored(logps, entropy, -gain * logps, gain)
    if objective.topk is None or objective.topk >= student.shape[-1]:
        return Scored(logps, entropy, divergence(student - normaliser, teacher - anchor, objective.alpha), gain)
    ids = student.detach().topk(objective.topk, dim=-1).indices
    ours, theirs = student.gather(-1, ids) - normaliser, teacher.gather(-1, ids) - anchor
    ours, theirs = (_with_tail(logs) if objective.tail else logs.log_softmax(-1) for logs in (ours, theirs))
    return Scored(logps, entropy, divergence(ours, theirs, objective.alpha), gain)


def divergence(student: Any, teacher: Any, alpha: float) -> Any:
    """Return the generalised Jensen-Shannon divergence of distributions in the last dimension, given as logarithms.

    With M = (1-a)S + aT and a = ``alpha`` it is a·KL(T‖M) + (1-a)·KL(S‖M); at 0 it is KL(T‖S), and at 1 it is KL(S‖T).
    """
    if alpha == 0:
        return _kl(teacher, student)
    if alpha == 1:
        return _kl(student, teacher)
    mixture = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
    return alpha * _kl(teacher, mixture) + (1 - alpha) * _kl(student, mixture)


def ratio(logps: Any, old: Any | None, clip: float | None) -> Any:
    """Return what corrects tokens of an older policy: min(S/S_old, clip), without a gradient; 1 if nothing is older."""
    if old is None or clip is None:
        return torch.ones_like(logps)
    return (logps.detach() - old).clamp(-RATIO_BOUND, RATIO_BOUND).exp().clamp(max=clip)


def policy(logps: Any, old: Any | None, advantages: Any, epsilon: tuple[float, float]) -> Any:
    """Return PPO's clipped loss of each token, whose gradient at the rollout's own policy is -A·∇log S(y)."""
    change = (logps - (logps.detach() if old is None else old)).exp()
    return -torch.min(change * advantages, change.clamp(1 - epsilon[0], 1 + epsilon[1]) * advantages)


def _kl(first: Any, second: Any) -> Any:
    return (first.exp() * (first - second)).sum(-1)


def _with_tail(logs: Any) -> Any:
    mass = logs.logsumexp(-1, keepdim=True).clamp(max=TAIL_CEILING)
    return torch.cat([logs, (-torch.expm1(mass)).log()], dim=-1)


def widened(logits: Any) -> Any:
    """Return logits in the type that the objective computes in."""
    return logits if logits.dtype == torch.float64 else logits.float()
