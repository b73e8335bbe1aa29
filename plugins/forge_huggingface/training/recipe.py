"""What a method adds to the common way of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from forge.api import Data


class Idle(NamedTuple):
    """Why a step taught nothing, as half a sentence, and what to do about it."""

    why: str
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a method adds to the common way of training.

    Attributes:
        config: The class of the trainer's arguments.
        trainer: The class of the trainer.
        arguments: Arguments of the trainer beside model, rows, processor, collator and callbacks.
        values: Arguments of the config that follow from something else than ``[train]``.
        batch: For methods that answer prompts: makes, from trainer and rows, a batch as large as one can get, so that
            the probe need not answer any; None where the collator makes batches.
        every: For methods that answer prompts: from the config, the number of optimizer steps that one set of answers
            lasts. Between two of them a checkpoint could not be resumed exactly.
        idle: From the numbers of a logged step, why it taught nothing, where the method knows more than the gradient
            tells; None of a step that taught something.
    """

    config: type
    trainer: type
    arguments: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    batch: Callable[[Any, Data], dict[str, Any]] | None = None
    every: Callable[[Any], int] | None = None
    idle: Callable[[Mapping[str, Any]], Idle | None] | None = None
