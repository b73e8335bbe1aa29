"""What an answer is led by beside its sampling: when somebody ends it, and what it has said already."""

from __future__ import annotations

import threading
from typing import Any


class Stop:
    """Ends an answer when somebody says so: one of transformers' stopping criteria."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002 - transformers' signature
        """Return for each row whether it ends here."""
        import torch

        return torch.full((input_ids.shape[0],), self.now.is_set(), dtype=torch.bool, device=input_ids.device)


def presence(penalty: float, width: int) -> Any:
    """Return a processor that takes ``penalty`` from the score of every token that the answer holds.

    As OpenAI's API defines it; transformers has none. ``width`` is the length of the prompt, which does not count.
    """
    from transformers import LogitsProcessor

    class PresencePenalty(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            import torch

            said = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, input_ids[:, width:], value=True)
            return scores - penalty * said

    return PresencePenalty()
