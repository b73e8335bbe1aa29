"""Attention in which rows that lie end to end see nothing of each other, without a mask: ``"varlen"``.

A mask of such a batch is a matrix of all pairs of its tokens, and takes attention a slower way. torch's own kernel for
rows of unequal length takes their boundaries instead (``torch.nn.attention.varlen``). It is for 16 bit on a GPU;
elsewhere each row is a call of its own, which is exact and still cheaper than a mask. Batches without boundaries go the
usual way, by ``sdpa``.
"""

from __future__ import annotations

import inspect
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forge_huggingface.rules.attention import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

KNOWN_HERE = (1, 1, 1, 1)
"""The shape of a mask that says: the boundaries are given, build none. transformers passes a mask of four dimensions on
as it is, and would else look into the positions of each batch for rows that begin anew, and wait for the device."""

HALF = (torch.float16, torch.bfloat16)


class BoundariesLost(RuntimeError):  # noqa: N818 - what happened, as a name
    """A model calls its attention without the boundaries that it was given, so that rows would see each other."""


def register() -> None:
    """Make the attention known to transformers."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention, as transformers calls it.

    Args:
        module: The layer.
        query: Queries, of shape (batch, heads, length, width).
        key: Keys, of shape (batch, heads of keys, length, width).
        value: Values, of the same shape.
        attention_mask: A mask, where there are no boundaries.
        dropout: The share of weights that are dropped; none can be where boundaries are given.
        scaling: What the products are multiplied with; one over the root of the width if it is None.
        sliding_window: How many tokens a token sees, itself included; all before it if it is None.
        cu_seq_lens_q: Where each row begins, and the end of the last, in the only batch.
        max_length_q: The length of the longest row.
        more: What transformers hands to every attention.

    Returns:
        The result, of shape (batch, length, heads, width), and None for the weights.

    Raises:
        BoundariesLost: The batch came without mask and boundaries, though it has rows end to end.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        if attention_mask is not None and tuple(attention_mask.shape) == KNOWN_HERE and query.shape[2] > 1:
            raise BoundariesLost(f"{type(module).__name__} lost the boundaries of the rows")
        usual: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **more
        )
        return usual
    if dropout:
        raise BoundariesLost(f"{type(module).__name__} drops attention weights, which rows end to end cannot")
    if query.dtype not in HALF and torch.is_autocast_enabled(query.device.type):  # as torch's own attention does
        half = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(half), key.to(half), value.to(half)
    # One batch, so that none of these is a copy: (length, heads, width).
    q, k, v = (each.transpose(1, 2).reshape(-1, each.shape[1], each.shape[3]) for each in (query, key, value))
    kernel = by_kernel if query.is_cuda and query.dtype in HALF else row_by_row
    return kernel(q, k, v, cu_seq_lens_q, max_length_q, scaling, sliding_window)[None], None


def by_kernel(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scaling: float | None, window: int | None
) -> Tensor:
    """Call torch's kernel. Tensors are of shape (tokens, heads, width)."""
    call, grouped = _kernel()
    options = {"enable_gqa": True} if grouped and query.shape[1] != key.shape[1] else {}
    span = (-1 if window is None else window - 1, 0)
    found: Tensor = call(
        query, key, value, starts, starts, longest, longest, scale=scaling, window_size=span, **options
    )
    return found


@cache
def _kernel() -> tuple[Callable[..., Tensor], bool]:
    """Return torch's function, and whether it wants to be told of fewer heads of keys (torch 2.12; 2.11 takes them)."""
    from torch.nn.attention.varlen import varlen_attn  # torch 2.10; `window_size`, which causal attention needs, 2.11

    return varlen_attn, "enable_gqa" in inspect.signature(varlen_attn).parameters


def row_by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,  # noqa: ARG001 - the same arguments as the kernel's
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Call torch's usual attention for each row. Tensors are of shape (tokens, heads, width)."""
    grouped = query.shape[1] != key.shape[1]
    found = []
    for start, end in pairwise(starts.tolist()):
        q, k, v = (each[start:end].transpose(0, 1)[None] for each in (query, key, value))
        length = end - start
        options: dict[str, Any] = {"is_causal": True}
        if window is not None and length > window:
            behind = torch.arange(length, device=query.device)
            behind = behind[:, None] - behind
            options = {"attn_mask": (behind >= 0) & (behind < window)}
        row = scaled_dot_product_attention(q, k, v, scale=scaling, enable_gqa=grouped, **options)
        found.append(row[0].transpose(0, 1))
    return torch.cat(found)
