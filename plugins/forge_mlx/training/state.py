"""What a checkpoint holds: all that the steps to come depend on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from forge_mlx.training.optimizers import Arrays, Optimizer


@dataclass
class State:
    """Where a training stands.

    Attributes:
        step: The steps that have ended.
        total: The sum of their losses.
        recent: The sums of what was measured since the last log.
        unlogged: How many steps these are of.
        tokens: The tokens of rows so far.
        evaluated: What the last evaluation found.
        best: The best value of the metric so far.
        best_step: The step of that evaluation.
        without: How many evaluations in a row were no better.
        idle: How many logged steps in a row had no gradient.
        logs: How many steps were logged.
        last: The numbers of the last logged step.
        told: The step at which training ended early, if it did.
    """

    step: int = 0
    total: float = 0.0
    recent: dict[str, float] = field(default_factory=dict)
    unlogged: int = 0
    tokens: int = 0
    evaluated: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    without: int = 0
    idle: int = 0
    logs: int = 0
    ended: bool = False


def trained(module: Any) -> Arrays:
    """Return the weights that are trained, by name."""
    return dict(tree_flatten(module.trainable_parameters()))


def take(module: Any, weights: Arrays) -> None:
    """Put weights into a model."""
    module.update(tree_unflatten(list(weights.items())))


def save(folder: Path, state: State, module: Any, optimizer: Optimizer, best: Arrays | None) -> None:
    """Write a checkpoint into an empty folder."""
    mx.save_safetensors(str(folder / "weights.safetensors"), trained(module))
    mx.save_safetensors(str(folder / "optimizer.safetensors"), optimizer.state)
    if best is not None:
        mx.save_safetensors(str(folder / "best.safetensors"), best)
    (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")


def restore(folder: Path, module: Any, optimizer: Optimizer) -> tuple[State, Arrays | None]:
    """Take up a checkpoint; return where it stands, and the best weights so far if they are kept."""
    take(module, mx.load(str(folder / "weights.safetensors")))
    optimizer.state = dict(mx.load(str(folder / "optimizer.safetensors")))
    best = folder / "best.safetensors"
    mx.eval(module.parameters(), optimizer.state)
    state = State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    return state, dict(mx.load(str(best))) if best.is_file() else None
