"""What a method adds to the common way of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from forge.api import Data


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
    """

    config: type
    trainer: type
    arguments: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    batch: Callable[[Any, Data], dict[str, Any]] | None = None
    every: Callable[[Any], int] | None = None
