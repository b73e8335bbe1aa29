"""Recomputing some layers only, under trainers that switch checkpointing off for a while and on again."""

from __future__ import annotations

from types import MethodType
from typing import Any

from forge_huggingface.arguments.tables import CHECKPOINTED


def heed_layers(model: Any) -> None:
    """Have a model take ``every_n_layers`` and ``offload`` among the arguments of gradient checkpointing.

    transformers' Trainer takes them out of ``gradient_checkpointing_kwargs`` when it begins. TRL's trainers switch
    checkpointing off while they ask the reference, and then on with all that is in there, which would go to torch and
    recompute every layer (``trl/models/utils.py``, ``disable_gradient_checkpointing``; trl 1.14.2 and 1.16).
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if hasattr(type(whole), "gradient_checkpointing_enable"):
        whole.gradient_checkpointing_enable = MethodType(_enable, whole)


def _enable(model: Any, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
    given = dict(gradient_checkpointing_kwargs or {})
    options |= {name: given.pop(name) for name in CHECKPOINTED if name in given}
    type(model).gradient_checkpointing_enable(model, given or None, **options)
