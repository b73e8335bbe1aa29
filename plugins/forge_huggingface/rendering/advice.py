"""Which template of forge would write a row that the run's own does not write, or not whole."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge_huggingface.rendering.conversations import Conversations
from forge_huggingface.rendering.study import study
from forge_huggingface.rendering.templates import shipped, text_of_shipped
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from forge_huggingface.rendering.templates import Template
    from forge_huggingface.rows import Conversation


_CONTROL = re.compile(r"<\|\w+\|>|<\w+_of_turn>")


def advice(row: Conversation, template: Template, tokenizer: Any) -> str:
    """Return what to do about a row: one of forge's templates, if it writes all of this very row."""
    for name in _fitting(tokenizer, template.name):
        other = replace(template, name=name, text=text_of_shipped(name), origin="forge", keep_reasoning=False)
        try:
            Conversations(study(other, tokenizer), tokenizer, "all").piece(row)
        except BadRow:
            continue
        return f'set chat_template = "{name}", which writes it, or set on_bad_row = "drop"'
    return 'set chat_template to a .jinja file that writes it, or set on_bad_row = "drop"'


def _fitting(tokenizer: Any, without: str) -> list[str]:
    """Return the templates of forge whose control tokens a tokenizer knows, those that have some first."""
    fitting: dict[str, int] = {}
    for name in shipped():
        tokens = set(_CONTROL.findall(text_of_shipped(name)))
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokens}
        known = all(
            index is not None and tokenizer.convert_ids_to_tokens(index) == token for token, index in ids.items()
        )
        if known and name != without:
            fitting[name] = len(tokens)
    return sorted(fitting, key=lambda name: (not fitting[name], name))
