"""How vLLM is asked to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class StructuredOutputsParams:
    """A form that answers must have."""

    regex: str | None = None


@dataclass
class SamplingParams:
    """The settings that TRL gives; those that the double does not follow must be neutral."""

    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: int | None = None
    structured_outputs: Any = None

    def __post_init__(self) -> None:
        neutral = (self.top_p, self.min_p, self.repetition_penalty, self.structured_outputs)
        if neutral != (1.0, 0.0, 1.0, None) or self.top_k > 0 or self.logprobs not in {None, 0}:
            raise NotImplementedError(f"the double of vLLM cannot do this: {self}")
