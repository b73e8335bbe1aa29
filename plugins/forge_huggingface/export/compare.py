"""Whether two models say the same: prompts to try, their logits, and how far those are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# How far the merged model's logits may be from the adapter model's: the root mean square of the difference over that of
# the logits themselves (each row centred), by the type of the merged weights. Rounding alone gives about 1e-6 in
# float32 and 1e-2 in bfloat16; a wrong scale or a forgotten layer gives far more. A ratio, because a divergence alone
# is small for any change of a model that is unsure.
LIMITS: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def probes(tokenizer: Any, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return three short inputs: a chat where there is a template, a sentence, and a row of mixed tokens.

    Args:
        tokenizer: The tokenizer.
        variables: Those of ``[data] chat_template_kwargs``.
    """
    import torch

    texts = ["The quick brown fox jumps over the lazy dog.", "def add(a, b):\n    return a + b\n"]
    found = [tokenizer(text)["input_ids"] for text in texts]
    if tokenizer.chat_template:
        found.append(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "Name three colours."}],
                add_generation_prompt=True,
                return_dict=True,
                **variables,
            )["input_ids"]
        )
    else:
        found.append([index % len(tokenizer) for index in range(7, 7 * 24, 7)])
    return [{"input_ids": torch.tensor([ids])} for ids in found if ids]


def image_probes(processor: Any) -> list[dict[str, Any]]:
    """Return inputs with and without an image, as the processor makes them."""
    from PIL import Image

    image = Image.linear_gradient("L").resize((112, 84)).convert("RGB")
    pictured = {"text": [f"A picture: {processor.image_token} of what?"], "images": [[image]]}
    found = [processor(return_tensors="pt", **each) for each in (pictured, {"text": ["The quick brown fox jumps."]})]
    return [dict(each) for each in found]


def logits(model: Any, prompts: list[dict[str, Any]]) -> list[Any]:
    """Return the logits of every position of every prompt, float32, shape (tokens, vocabulary).

    An encoder-decoder model gets the first tokens of the prompt for its answer. A reward model gives shape (1,), a
    classifier (labels,).
    """
    import torch

    found = []
    with torch.inference_mode():
        for inputs in prompts:
            answer = {"decoder_input_ids": inputs["input_ids"][:, :8]} if model.config.is_encoder_decoder else {}
            found.append(model(**inputs, **answer).logits[0].float())
    return found


def compare_numbers(before: list[Any], after: list[Any]) -> dict[str, Any]:
    """Compare the numbers of a reward model or a classifier: the largest difference, against the largest number."""
    import torch

    first, second = torch.cat(before), torch.cat(after)
    return {"error": float((first - second).abs().max() / first.abs().max()), "positions": first.shape[0]}


def compare(before: list[Any], after: list[Any]) -> dict[str, Any]:
    """Compare two lists of logits of shape (tokens, vocabulary).

    Returns:
        ``error``: root mean square of the difference over that of ``before``, rows centred. ``kl_mean``, ``kl_max``:
        Kullback-Leibler divergence of ``after`` from ``before`` per position, in nats. ``top1``: share of positions
        with the same best token. ``positions``: how many.
    """
    import torch

    first, second = torch.cat(before), torch.cat(after)
    centred = [rows - rows.mean(-1, keepdim=True) for rows in (first, second)]
    error = (centred[0] - centred[1]).square().mean().sqrt() / centred[0].square().mean().sqrt()
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1)
    return {
        "error": float(error),
        "kl_mean": float(divergence.mean().clamp(min=0)),
        "kl_max": float(divergence.max()),
        "top1": float((first.argmax(-1) == second.argmax(-1)).float().mean()),
        "positions": first.shape[0],
    }
