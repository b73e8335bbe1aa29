"""Whether a training learns anything: what says that it does not is told within the first steps, and at the end.

A loss of 0, or one that does not move, looks the same whether a model knows all or is taught nothing. So it is told
from what must be there for a step to teach: a gradient, and of weights that have changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from forge.api import Warned
from forge_huggingface.training.recipe import Idle
from forge_huggingface.training.save import is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


PATIENCE = 5
"""After so many logged steps in a row that taught nothing it is said."""

_NO_GRADIENT = Idle("the gradient was exactly 0", "see `forge data` for what is in the loss")
_NO_NUMBER = Idle("the gradient was infinite or no number", "lower learning_rate, or use bf16 in place of fp16")
_PARTS = {"cpu": 2**18}
_PART = 2**24
"""Numbers that are summed up at once: all of them are made 64 bits wide for it, on a CPU in its cache."""


class Learning:
    """Watches what a trainer logs, and whether its weights change.

    Args:
        model: The model before its first step.
        idle: Says of a logged step why it taught nothing, where the method knows more than the gradient does.

    Attributes:
        logs: How many steps were logged.
        streak: How many of the last of them taught nothing, in a row.
        reasons: Why they did not, each once.
        rate: The highest learning rate.
        told: The reasons that were told already.
        before: The weights' sums before the first step; None where they are not known.
    """

    def __init__(self, model: Any, idle: Callable[[Mapping[str, Any]], Idle | None] | None = None) -> None:
        self.idle = idle
        self.logs = self.streak = 0
        self.reasons: list[str] = []
        self.rate = 0.0
        self.told: list[str] = []
        self.before: dict[str, int] | None = sums(model)

    def see(self, values: Mapping[str, Any], model: Any) -> Warned | None:
        """Take note of a logged step; return what there is to be told."""
        self.logs += 1
        if is_number(rate := values.get("learning_rate")):
            self.rate = max(self.rate, rate)
        found = (self.idle and self.idle(values)) or without_gradient(values)
        self.streak = self.streak + 1 if found else 0
        if found is None:
            self.reasons = []
            unmoved = self.logs == PATIENCE and self.unmoved(model)
            return self._tell(f"no weight changed in the first {PATIENCE} logged steps", unmoved) if unmoved else None
        if found.why not in self.reasons:
            self.reasons.append(found.why)
        if self.streak < PATIENCE or found.why in self.told:
            return None
        which = "first" if self.streak == self.logs else "last"
        return self._tell(f"nothing was learned in the {which} {self.streak} logged steps", found)

    def end(self, model: Any) -> Warned | None:
        """Return what is to be told of the trained weights; None if they have learned."""
        if not self.logs or self.before is None:
            return None
        if self.streak == self.logs:
            steps = f"all {self.logs} logged steps" if self.logs > 1 else "the one logged step"
            return Warned(f"nothing was learned: in {steps} {', or '.join(self.reasons)}")
        unmoved = self.unmoved(model)
        return Warned(f"nothing was learned: no weight changed, {unmoved.why}", unmoved.do) if unmoved else None

    def unmoved(self, model: Any) -> Idle | None:
        """Return why no weight has changed since the beginning; None if one has, or it is not known."""
        if not self.before or sums(model) != self.before:
            return None
        kinds = " and ".join(
            sorted({str(each.dtype).removeprefix("torch.") for each in model.parameters() if each.requires_grad})
        )
        if not self.rate:
            return Idle("since the learning rate was 0", "raise [train] learning_rate, or shorten the warmup")
        why = f"since steps at a learning rate of {self.rate:.3g} are lost in rounding to {kinds}"
        return Idle(why, "raise [train] learning_rate, or train in float32")

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON data."""
        return {name: getattr(self, name) for name in ("logs", "streak", "reasons", "rate", "told", "before")}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take back what :meth:`state` returned; of a checkpoint that lacks it, nothing is known of the beginning."""
        for name, value in (state or {"before": None}).items():
            setattr(self, name, value)

    def _tell(self, what: str, found: Idle) -> Warned:
        self.told.append(found.why)
        return Warned(f"{what}: {found.why}", found.do)


def without_gradient(values: Mapping[str, Any]) -> Idle | None:
    """Return why a logged step taught nothing, as far as its gradient tells."""
    gradient = values.get("grad_norm")
    if not isinstance(gradient, int | float):
        return None
    return _NO_GRADIENT if gradient == 0 else None if math.isfinite(gradient) else _NO_NUMBER


def sums(model: Any) -> dict[str, int]:
    """Return for each trained parameter the sum of its numbers' bits, as integers: other weights have another sum."""
    import torch

    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel() and parameter.device.type != "meta":
            value = parameter.detach()
            value = value.to_local() if hasattr(value, "to_local") else value
            size = _PARTS.get(value.device.type, _PART)
            bits = value.reshape(-1).view(getattr(torch, f"int{8 * value.element_size()}"))
            found[name] = sum(int(part.sum(dtype=torch.int64)) for part in bits.split(size))
    return found
