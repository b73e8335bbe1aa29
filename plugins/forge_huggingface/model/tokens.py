"""Rows of new tokens, which are trained beside LoRA: peft's ``trainable_token_indices``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = "trainable_tokens_delta"
"""What peft calls the rows of tokens that are trained beside LoRA."""


def rows_of(model: Any, whole: Sequence[str], tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Return peft's ``trainable_token_indices``: rows of the embedding, and of the output layer where it is another.

    peft trains those of a tied output layer with the embedding's.

    Args:
        model: The model.
        whole: Names of modules that are trained whole, as they end.
        tokens: The ids of the tokens.

    Raises:
        ModelError: The output layer has a bias, which peft would leave out.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is embedding.weight
    wanted = [embedding] if tied else [embedding, head]
    names = [name for name, module in model.named_modules() if any(module is each for each in wanted)]
    names = [name for name in names if not any(f".{name}".endswith(f".{each}") for each in whole)]
    if not tokens or not names:
        return None
    if head is not None and getattr(head, "bias", None) is not None:
        why = "its output layer has a bias, which peft leaves out beside trained rows"
        do = 'train it whole: modules_to_save = ["lm_head"], or type = "none"'
        raise ModelError("[model] add_tokens: LoRA cannot be on this model", why, do)
    return {name.rpartition(".")[2]: list(tokens) for name in names}


def show_rows(model: Any) -> None:
    """Let losses that read the output layer's weight, as TRL's do, see the trained rows of tokens in it.

    They read its bias too, which peft's wrapper does not show (peft 0.21). Raises :class:`ModelError` if it does not
    show the rows either.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "token_adapter"):
        return
    head.bias = None
    if not head.weight.requires_grad:
        raise ModelError("[model] add_tokens: this peft does not show trained rows to the loss", None, "update peft")
