"""What a checkpoint holds: all that the steps to come depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass
class State:
    """Where a training stands.

    Attributes:
        step: The steps that have ended.
        total: The sum of their losses.
        recent: The sum of those since the last one that was logged.
        unlogged: How many these are.
        evaluated: What the last evaluation found.
    """

    step: int = 0
    total: float = 0.0
    recent: float = 0.0
    unlogged: int = 0
    evaluated: dict[str, float] | None = None


def save(folder: Path, state: State, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint into an empty folder."""
    content = {
        "state": asdict(state),
        "weights": {name: weight.detach() for name, weight in trained(model).items()},
        "optimizer": optimizer.state_dict(),
        "dice": torch.get_rng_state(),  # dropout draws from it
    }
    torch.save(content, folder / "training.pt")


def restore(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> State:
    """Take up a checkpoint, and return where it stands."""
    content = torch.load(folder / "training.pt", weights_only=True)
    with torch.no_grad():
        for name, weight in trained(model).items():
            weight.copy_(content["weights"][name])
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["dice"])
    return State(**content["state"])


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
