"""Whether conversations with calls can be written and read: asked before a model is loaded, of TRL's own functions."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from forge.api import ModelError

_TRIAL = {"role": "tool", "name": "forge_trial", "content": "1"}


def calling(processor: Any, variables: dict[str, Any]) -> str | None:
    """Return the chat template by which the trainer writes calls; None for the processor's own.

    The processor learns how to read calls, where TRL knows it for its template.

    Args:
        processor: The tokenizer or processor.
        variables: What the template is given beside messages and tools.

    Raises:
        ModelError: The template writes no calls, or nobody can say how to read what it writes.
    """
    from trl import GRPOTrainer
    from trl.chat_template_utils import (
        add_response_schema,
        get_training_chat_template,
        is_chat_template_prefix_preserving,
        supports_tool_calling,
    )

    tokenizer = getattr(processor, "tokenizer", processor)
    what, do = "the model cannot be trained with tools", "take a model whose chat template knows tools, as Qwen3's"
    if not supports_tool_calling(processor):
        raise ModelError(what, "its chat template does not write calls of tools and their results", do)
    try:
        if all(getattr(tokenizer, name, None) is None for name in ("response_template", "response_schema")):
            add_response_schema(processor)
        whole = is_chat_template_prefix_preserving(processor)
        template: str | None = None if whole else get_training_chat_template(processor)
    except ValueError as error:
        why = "TRL does not know how calls are read that its chat template writes"
        put = "[data] chat_template names another; a response_template in tokenizer_config.json says how"
        raise ModelError(what, why, f"{do}; {put}") from error
    if _guesses(tokenizer):
        why = "its chat template writes calls as XML, and TRL before 1.16 guesses which arguments in it are numbers"
        raise ModelError(what, why, f"update TRL (pip install 'trl>=1.16'), or {do}")
    trainer = SimpleNamespace(
        processing_class=processor,
        _tokenizer=tokenizer,
        chat_template=template,
        chat_template_kwargs=variables,
        _is_vlm=processor is not tokenizer,
    )
    try:
        GRPOTrainer._get_tool_suffix_ids(trainer, [_TRIAL])  # noqa: SLF001 - what it does after each call
    except ValueError as error:
        why = f"its chat template writes a call otherwise once there is a result ({error})"
        raise ModelError(what, why, do) from error
    return template


def _guesses(tokenizer: Any) -> bool:
    """Whether the text 007 may come to a tool as the number 7: TRL tells the reader of XML the types since 1.16."""
    from trl.chat_template_utils import parse_response

    reading = getattr(tokenizer, "response_template", None) or {}
    calls = reading.get("fields", {}).get("tool_calls", {})
    return calls.get("content") == "xml-inline" and "tools" not in inspect.signature(parse_response).parameters
