"""How likely a model finds what a row says."""

from __future__ import annotations

from typing import Any

_POSITIONS = 1024  # whose logits are turned to 32 bit at once


def sums(logits: Any, labels: Any) -> tuple[list[float], list[int]]:
    """Return each row's sum of negative log-likelihoods in nats, and its number of labels.

    Args:
        logits: Shape (rows, tokens, vocabulary), each place's for the label of the same place.
        labels: Shape (rows, tokens), -100 where nothing is asked.
    """
    import torch

    asked = labels != -100
    found = torch.zeros(len(labels), dtype=torch.float64, device=logits.device)
    for rows, places in zip(*(index.split(_POSITIONS) for index in asked.nonzero(as_tuple=True)), strict=True):
        scores = logits[rows, places].float()
        chosen = scores.gather(1, labels[rows, places, None])[:, 0]
        found.index_add_(0, rows, (scores.logsumexp(1) - chosen).double())
    return found.tolist(), asked.sum(1).tolist()
