"""No attention mask where none is needed: rows that are padded at the right, in a model that only looks back.

A token of a row never sees what comes after it, so what the padding computes reaches no token that counts. With a mask,
attention takes a slower way, and for each layer a matrix of all pairs of tokens.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from transformers import masking_utils

from forge_huggingface.kernels import seams
from forge_huggingface.rules.kernels import PADDED

LOOK = "find_packed_sequence_indices"


class Dropping:
    """Takes the masks of padding away from a decoder while it is trained.

    Attributes:
        plain: Whether the forward pass under way is one of rows that were given no positions. transformers looks at
            positions for packed rows where there is no mask, and waits for the device to say that there are none.
    """

    def __init__(self) -> None:
        self.plain = False

    def begin(self, module: nn.Module, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Take the mask away: a hook before the decoder's forward pass."""
        mask = options.get("attention_mask")
        if not module.training or not isinstance(mask, torch.Tensor) or mask.dim() != 2 or mask.shape[1] < 2:
            return None
        if options.get("past_key_values") is not None:
            return None
        # It holds for every batch that forge makes; asked on the device, which is not waited for.
        torch._assert_async(((mask[:, 1:] > mask[:, :-1]).sum() == 0), "rows are padded at the left")  # noqa: SLF001
        self.plain = options.get("position_ids") is None
        return arguments, {**options, "attention_mask": None}

    def end(self, module: nn.Module, arguments: Any, result: Any) -> None:  # noqa: ARG002 - a hook's
        """Note that the pass is over: a hook after it, however it ended."""
        self.plain = False

    def packed(self, own: Any) -> Any:
        """Return what takes the place of transformers' look for packed rows."""

        @functools.wraps(own)
        def find(position_ids: torch.Tensor) -> torch.Tensor | None:
            return None if self.plain else own(position_ids)

        return find


def install(model: nn.Module, method: str) -> str | None:
    """Have the model's decoder get no mask of padding. Return why that cannot be, or None.

    Args:
        model: The model.
        method: The training method.
    """
    if method not in PADDED:
        return "this method needs it"
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = inner.get_decoder() if hasattr(inner, "get_decoder") else None
    if not isinstance(decoder, nn.Module) or decoder is inner:
        return "the model has no decoder of its own"
    attentions = [each for each in decoder.modules() if hasattr(each, "q_proj") or hasattr(each, "is_causal")]
    if not attentions:
        return "it is not known whether its attention looks ahead"
    if not all(getattr(each, "is_causal", True) is True for each in attentions):
        return "its attention looks ahead"
    dropping = Dropping()
    decoder.register_forward_pre_hook(dropping.begin, with_kwargs=True)
    decoder.register_forward_hook(dropping.end, always_call=True)
    seams.replace(masking_utils, LOOK, dropping.packed(seams.original(masking_utils, LOOK)))
    return None
