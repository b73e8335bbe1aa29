"""From hidden states to logits: the last step of a model's forward pass, done apart so that it can be done in chunks.

Architectures differ in what they do to the product of hidden states and head: Cohere multiplies it, Granite divides it,
Gemma bounds it. The names of these settings are those that transformers' configurations have (TRL reads the same ones
in ``add_fused_lm_head``). Because a table of names can never be complete, :func:`check` compares the result with the
model's own logits before anything is learnt.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from forge.api import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference relative to the largest logit; 16 bit types are allowed 2e-2."""


def causal_model(model: Any) -> Any:
    """Return the transformers model inside an adapter."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def hidden_states(model: Any, ids: Any, mask: Any, keep: int) -> Any:
    """Return the hidden states that predict the last ``keep`` tokens: (rows, keep, hidden size).

    Rows come with padding on the left of their prompts. It is moved to the right here, where no token sees it even if a
    backend's layers ignore the mask, as Unsloth's do while they train, and where positions begin at 0.

    Args:
        model: The model, with or without an adapter.
        ids: Token ids, (rows, length).
        mask: 1 for tokens, 0 for padding, (rows, length).
        keep: How many tokens at the end of each row are the answer, its own padding included.
    """
    length, places = ids.size(1), torch.arange(ids.size(1), device=ids.device)
    lead = (mask.cumsum(dim=1) == 0).sum(dim=1, keepdim=True)
    width = length - int(lead.min())
    source = places[None, :width] + lead
    there, source = source < length, source.clamp(max=length - 1)
    backbone = causal_model(model).base_model
    states = backbone(
        input_ids=ids.gather(1, source), attention_mask=mask.gather(1, source) * there, use_cache=False
    ).last_hidden_state
    before = length - keep - lead - 1 + places[None, :keep]
    return states.gather(1, before[..., None].expand(-1, -1, states.size(-1)))


def logits_of(model: Any) -> Callable[[Any], Any]:
    """Return the function that makes a model's logits of its hidden states."""
    inner = causal_model(model)
    layer, config = inner.get_output_embeddings(), inner.config.get_text_config()
    scale, cap = _scale(config), getattr(config, "final_logit_softcapping", None)

    def logits(hidden: Any) -> Any:
        found = layer(hidden)
        if scale != 1.0:
            found = found * scale
        return torch.tanh(found / cap) * cap if cap else found

    return logits


def parameters_of(model: Any) -> list[Any]:
    """Return the trained parameters of the head."""
    return [p for p in causal_model(model).get_output_embeddings().parameters() if p.requires_grad]


def check(model: Any, ids: Any) -> None:
    """Compare with the model's own logits on a few tokens, (1, tokens).

    Raises:
        PluginError: They are others, or none: Unsloth can make a model return hidden states in their place.
    """
    inner = causal_model(model)
    with torch.no_grad(), _own_logits():
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        ours = logits_of(model)(inner.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    vocabulary = inner.get_output_embeddings().weight.shape[0]
    what = f"{type(inner).__name__} does not give its logits"
    if theirs.shape != ours.shape:
        raise PluginError(what, f"shape {tuple(theirs.shape)}, not {tuple(ours.shape)} (vocabulary {vocabulary})")
    apart = ((theirs.float() - ours.float()).abs().max() / theirs.float().abs().max().clamp(min=1e-6)).item()
    if not apart <= TOLERANCE.get(ours.dtype, 2e-2):
        why = f"{apart:.1e} apart from its head's: this architecture does more between hidden states and logits"
        raise PluginError(what, why, "use another model, and please report it")


@contextmanager
def _own_logits() -> Iterator[None]:
    """Have Unsloth's models return logits: while its trainer computes log-probabilities they return hidden states."""
    name = "UNSLOTH_RETURN_HIDDEN_STATES"
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def _scale(config: Any) -> float:
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    # Granite and MiniCPM3 divide by it, HyperCLOVA X multiplies.
    return float(divisor) if config.model_type == "hyperclovax" else 1.0 / float(divisor)
