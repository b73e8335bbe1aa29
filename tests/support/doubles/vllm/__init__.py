"""A double of vLLM 0.27, which needs a GPU: the part of it that TRL calls where vLLM runs in the training process.

It answers with a transformers model that begins with zeros in every weight, so that it says something of sense only if
TRL has given it the policy's weights, by the names of vLLM's own loader. Sampling and the log-probabilities of what was
sampled are real. What it leaves out raises an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM

from .sampling_params import SamplingParams, StructuredOutputsParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LLM", "RequestOutput", "SamplingParams", "StructuredOutputsParams"]
__version__ = "0.27.0"


@dataclass
class Logprob:
    """What a token was worth."""

    logprob: float
    rank: int = 1


@dataclass
class CompletionOutput:
    """An answer."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass
class RequestOutput:
    """A prompt with its answers."""

    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


class LLM:
    """A model that answers.

    Args:
        model: Its folder.
        seed: Where its random numbers begin.
        max_model_len: The most tokens of a prompt with its answer.
        gpu_memory_utilization, enable_sleep_mode and the rest: Kept in ``settings``.
    """

    def __init__(self, model: str, *, seed: int = 0, max_model_len: int | None = None, **settings: Any) -> None:
        self.settings = settings
        self.inner = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.random = torch.Generator().manual_seed(seed)
        self.asleep = False
        with torch.no_grad():
            for parameter in self.inner.parameters():
                parameter.zero_()
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self))
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=max_model_len or self.inner.config.max_position_embeddings),
            model_executor=SimpleNamespace(driver_worker=worker),
        )

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take weights by name."""
        assert not self.asleep, "there is no memory for weights"
        for name, value in weights:
            self.inner.get_parameter(name).data.copy_(value)

    def reset_prefix_cache(self) -> None:
        """Forget prompts: there is no cache."""

    def sleep(self, level: int = 1) -> None:
        """Give memory back; level 2 gives the weights away."""
        self.asleep = True
        if level == 2:
            for parameter in self.inner.parameters():
                parameter.data.zero_()

    def wake_up(self, tags: Sequence[str] = ()) -> None:  # noqa: ARG002 - vLLM's signature
        """Take memory again."""
        self.asleep = False

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Mapping[str, Any]], sampling_params: SamplingParams, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        """Answer."""
        assert not use_tqdm
        assert not self.asleep, "it has not been woken"
        assert any(parameter.any() for parameter in self.inner.parameters()), "it has been given no weights"
        return [self._answer(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def _answer(self, prompt: list[int], wanted: SamplingParams) -> RequestOutput:
        answers = []
        for _ in range(wanted.n):
            answer = CompletionOutput(logprobs=None if wanted.logprobs is None else [])
            while len(answer.token_ids) < wanted.max_tokens:
                scores = self.inner(torch.tensor([prompt + answer.token_ids])).logits[0, -1] / wanted.temperature
                logprobs = scores.log_softmax(-1)
                token = int(torch.multinomial(logprobs.exp(), 1, generator=self.random))
                answer.token_ids.append(token)
                if answer.logprobs is not None:
                    answer.logprobs.append({token: Logprob(float(logprobs[token]))})
                if token == self.inner.config.eos_token_id:
                    break
            answers.append(answer)
        return RequestOutput(list(prompt), answers)
