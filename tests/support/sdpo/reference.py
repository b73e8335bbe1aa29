"""SDPO's loss and gradient in float64 numpy, written from the paper's formulas and from nothing of forge.

The gradient is analytic, with respect to the student's logits.
"""

from __future__ import annotations

import numpy as np


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def buckets(p, ids, *, tail):
    """The K likeliest tokens' probabilities; the rest as one bucket, or the K renormalised."""
    chosen = np.take_along_axis(p, ids, -1)
    if tail:
        return np.concatenate([chosen, 1 - chosen.sum(-1, keepdims=True)], -1)
    return chosen / chosen.sum(-1, keepdims=True)


def divergence(s, t, alpha):
    """Value and derivative by s of the generalised Jensen-Shannon divergence of two distributions."""
    if alpha == 0:
        return (t * np.log(t / s)).sum(-1), -t / s
    if alpha == 1:
        return (s * np.log(s / t)).sum(-1), np.log(s / t) + 1
    m = (1 - alpha) * s + alpha * t
    value = alpha * (t * np.log(t / m)).sum(-1) + (1 - alpha) * (s * np.log(s / m)).sum(-1)
    # d/ds of -alpha·t·log m + (1-alpha)·(s·log s - s·log m), with dm/ds = 1-alpha
    slope = -alpha * t * (1 - alpha) / m + (1 - alpha) * (np.log(s / m) + 1 - s * (1 - alpha) / m)
    return value, slope


def token_losses(student, teacher, labels, *, alpha, topk=None, tail=True, sampled=False, temperature=1.0):
    """Loss of each token and its derivative by the student's logits: (tokens,) and (tokens, vocabulary)."""
    s, t = softmax(student / temperature), softmax(teacher / temperature)
    rows = np.arange(len(labels))
    if sampled:
        log_ratio = np.log(s[rows, labels] / t[rows, labels])
        one = np.zeros_like(s)
        one[rows, labels] = 1
        return log_ratio * np.log(s[rows, labels]), log_ratio[:, None] * (one - s) / temperature
    if topk is None:
        value, by_s = divergence(s, t, alpha)
    else:
        ids = np.argsort(-s, -1)[:, :topk]
        ours, theirs = buckets(s, ids, tail=tail), buckets(t, ids, tail=tail)
        value, by_bucket = divergence(ours, theirs, alpha)
        by_s = np.zeros_like(s)
        if tail:  # the tail's probability falls by what the K gain
            np.put_along_axis(by_s, ids, by_bucket[:, :-1] - by_bucket[:, -1:], -1)
        else:
            total = np.take_along_axis(s, ids, -1).sum(-1, keepdims=True)
            mean = (by_bucket * ours).sum(-1, keepdims=True)
            np.put_along_axis(by_s, ids, (by_bucket - mean) / total, -1)
    by_logits = s * (by_s - (by_s * s).sum(-1, keepdims=True)) / temperature
    return value, by_logits


def weights(mask, taught, aggregation):
    """What each token counts: (rows, length). ``taught`` says which rows have a teacher."""
    active = mask * taught[:, None]
    if aggregation == "token-mean":
        return active / max(active.sum(), 1)
    return active / np.maximum(mask.sum(-1, keepdims=True), 1) / len(mask)
