"""Token after token: mlx-lm's decoding, with sampling and penalties as transformers has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step

if TYPE_CHECKING:
    from forge.api import Sampling

Scores = Callable[[mx.array], mx.array]
Changes = Callable[[mx.array, mx.array], mx.array]


def stream(module: Any, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
    """Yield the tokens of an answer, up to the longest one; whoever reads them knows where it ends."""
    changes = penalties(sampling, len(prompt))
    steps = generate_step(
        mx.array(prompt),
        module,
        max_tokens=sampling.max_new_tokens,
        sampler=sampler(sampling),
        logits_processors=changes or None,
    )
    for token, _ in steps:
        yield int(token)


def complete(
    module: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, stops: frozenset[int]
) -> list[list[int]]:
    """Return the tokens of an answer to each prompt, all made at a time; those that end have their last token."""
    made = BatchGenerator(
        module,
        max_tokens=sampling.max_new_tokens,
        stop_tokens=[[stop] for stop in sorted(stops)],
        sampler=sampler(sampling),
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    changes = [penalties(sampling, len(prompt)) for prompt in prompts]
    names = made.insert([list(prompt) for prompt in prompts], logits_processors=changes)
    found: dict[int, list[int]] = {name: [] for name in names}
    try:
        while answers := made.next_generated():
            for each in answers:
                found[each.uid].append(int(each.token))
    finally:
        made.close()
    return [found[name] for name in names]


def sampler(sampling: Sampling) -> Scores:
    """Return what takes a token by the scores of all; in the order of transformers, the temperature first."""
    if sampling.temperature <= 0:
        return lambda scores: mx.argmax(scores, axis=-1)

    def draw(scores: mx.array) -> mx.array:
        scores = scores.astype(mx.float32) / sampling.temperature
        if 0 < sampling.top_k < scores.shape[-1]:
            least = mx.sort(scores, axis=-1)[..., -sampling.top_k][..., None]
            scores = mx.where(scores < least, -mx.inf, scores)
        if sampling.top_p < 1:
            rising = mx.argsort(scores, axis=-1)
            share = mx.cumsum(mx.softmax(mx.take_along_axis(scores, rising, axis=-1), axis=-1), axis=-1)
            places = mx.put_along_axis(mx.zeros_like(rising), rising, mx.arange(rising.shape[-1])[None], axis=-1)
            kept = mx.take_along_axis(share, places, axis=-1) > 1 - sampling.top_p
            scores = mx.where(kept | (places == rising.shape[-1] - 1), scores, -mx.inf)
        if sampling.min_p:
            chances = mx.softmax(scores, axis=-1)
            scores = mx.where(chances < sampling.min_p * chances.max(axis=-1, keepdims=True), -mx.inf, scores)
        return mx.random.categorical(scores)

    return draw


def penalties(sampling: Sampling, width: int) -> list[Changes]:
    """Return what is taken from scores for what is there already.

    Args:
        sampling: How the answer is generated.
        width: Tokens of the prompt.
    """
    found: list[Changes] = []
    if sampling.repetition_penalty != 1:

        def repeated(tokens: mx.array, scores: mx.array) -> mx.array:
            there = scores[:, tokens]
            scores[:, tokens] = mx.where(
                there < 0, there * sampling.repetition_penalty, there / sampling.repetition_penalty
            )
            return scores

        found.append(repeated)
    if sampling.presence_penalty:

        def present(tokens: mx.array, scores: mx.array) -> mx.array:
            said = mx.zeros_like(scores)
            if tokens.size > width:
                said[:, tokens[width:]] = 1
            return scores - sampling.presence_penalty * said

        found.append(present)
    return found
