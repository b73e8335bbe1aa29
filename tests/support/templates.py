"""Chat templates of real models, which TRL ships, and a small tokenizer that keeps their control tokens whole."""

from __future__ import annotations

import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from support.tiny import make_tokenizer

_CONTROL = re.compile(r"<[^\s<>{}'\"]+>|\[/?[A-Z_]+\]")


def real(name: str) -> str:
    """Return the text of a real template, as the installed TRL has it."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@lru_cache(maxsize=32)
def tokenizer_for(text: str) -> Any:
    """Return a tokenizer that never splits what looks like a control token in a template's text."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(Path(folder)))
    known = tokenizer.get_vocab()
    tokenizer.add_tokens(
        [name for name in dict.fromkeys(_CONTROL.findall(text)) if name not in known], special_tokens=True
    )
    return tokenizer
