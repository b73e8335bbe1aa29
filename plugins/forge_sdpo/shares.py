"""What each token counts in an optimizer step.

The loss is a mean over a whole step, of all its micro-batches and processes. So the tokens of the step are counted
first, and each counts its share of them: then neither accumulation nor the number of processes changes the gradient.
"""

from __future__ import annotations

from typing import Any

import torch


def shares(
    mask: torch.Tensor, distilled: torch.Tensor, aggregation: str, window: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each token counts in the mean of an optimizer step: for the divergence, and for a policy loss.

    Args:
        mask: Which tokens the model wrote, (rollouts, tokens).
        distilled: Which of them have a teacher.
        aggregation: ``token-mean`` or ``sequence-mean``, as in :class:`~forge_sdpo.options.Sdpo`.
        window: Of the whole step: tokens with a teacher, tokens, rollouts.
    """
    taught, every, rollouts = window.clamp(min=1.0)
    if aggregation == "token-mean":
        return distilled / taught, mask / every
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return distilled / lengths / rollouts, mask / lengths / rollouts


def loss_mask(inputs: dict[str, Any]) -> torch.Tensor:
    """Return which tokens of a batch the model wrote, (rollouts, tokens)."""
    mask = inputs["completion_mask"].bool()
    return mask & inputs["tool_mask"].bool() if "tool_mask" in inputs else mask


def counts(inputs: dict[str, Any]) -> torch.Tensor:
    """Count tokens with a teacher, tokens, and rollouts."""
    mask = loss_mask(inputs)
    distilled = mask & inputs["teacher_mask"].any(dim=1)[:, None]
    counts = (distilled.sum(), mask.sum(), torch.tensor(len(mask), device=mask.device))
    return torch.stack(counts).to(torch.float32)
