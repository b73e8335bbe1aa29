"""Prompts with images: their pixels are made when the model is asked, and what the probe needs of them.

TRL's online trainers take them from a column ``images`` and fill places in the messages with them. Of images that stand
in the messages already RLOOTrainer would make pixels to answer, and none for the loss (1.14.2 and 1.16). Rows keep
references: see :mod:`forge_huggingface.vision.images`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.vision.prompts import opened

if TYPE_CHECKING:
    from collections.abc import Mapping


class Seeing:
    """Put before a trainer of an online method: the pictures of its prompts are opened for each set of answers."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        trainer: Any = self
        kept: dict[Any, Any] = {}
        if hasattr(trainer.processing_class, "tokenizer"):  # a processor, which makes pixels
            inputs = [{**row, **parted(opened(row["prompt"], kept))} for row in inputs]
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]  # the trainer behind it

    def _tokenize_prompts(self, prompts: Any) -> Any:
        ids, images, fields = super()._tokenize_prompts(prompts)  # type: ignore[misc]
        # TRL has None for a prompt without an image, which no processor takes beside others.
        return ids, images and [each or [] for each in images], fields


def parted(prompt: Any) -> dict[str, Any]:
    """Return a prompt with the places of its images alone, and the images, as TRL's trainers take them."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    images = [part["image"] for part in parts(prompt)]
    bare = [
        {**each, "content": [{"type": "image"} if part["type"] == "image" else part for part in each["content"]]}
        for each in prompt
    ]
    return {"prompt": bare, "images": images}


def parts(prompt: Any) -> list[Any]:
    """Return the images of a prompt, as parts of its messages."""
    return [part for each in prompt for part in each["content"] if part["type"] == "image"]


def unsampled(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by which a model that sees writes no token of an image, for which there would be no pixels."""
    token = getattr(model.config, "image_token_id", None)
    if token is None:
        return {}
    given = dict(options.get("generation_kwargs") or {})
    return {"generation_kwargs": {**given, "suppress_tokens": [*given.get("suppress_tokens", ()), token]}}


def seen(trainer: Any, prompt: Any, count: int, answer: int) -> dict[str, Any]:
    """Return what a batch has of so many times a prompt: its tokens, and what the processor makes of its images.

    Args:
        trainer: The trainer.
        prompt: The prompt, its pictures opened.
        count: How many rows the batch has.
        answer: How many tokens each answer has: what belongs to tokens is continued by zeros.
    """
    import torch
    from trl.data_utils import apply_chat_template

    processor = trainer.processing_class
    images = [part["image"] for part in parts(prompt)]
    text = apply_chat_template({"prompt": prompt}, processor, **trainer.chat_template_kwargs)["prompt"]
    given = {"images": [images] * count} if images else {}
    made = dict(processor(text=[text] * count, padding=True, return_tensors="pt", **given))
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in made:
            made[name] = torch.cat([made[name], made[name].new_zeros((count, answer))], dim=1)
    found = {"prompt_ids": made.pop("input_ids"), "prompt_mask": made.pop("attention_mask"), **made}
    return found | ({"num_images": [len(images)] * count} if images else {})
