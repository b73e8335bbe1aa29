"""What time it is in chat templates.

Some templates write today's date (``strftime_now``). Rows made of them would differ from one day to the next, and a
run could not be resumed after midnight. So a run has one moment, ``[data] date``, and its templates are told that.

transformers gives templates the clock of the day as a global and, since 5.23, takes no function as a variable. So the
moment is put among the globals of the compiled template, which transformers keeps for as long as the process runs:
whoever renders it there, TRL's trainers among them, gets the same.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


_NAME = "strftime_now"


def asks(text: str) -> bool:
    """Whether a template asks what time it is."""
    return _NAME in text


def now() -> str:
    """Return this moment as ``[data] date`` has it, in whole seconds."""
    return datetime.now().replace(microsecond=0).isoformat()


def stop(template: Any, date: str | None) -> None:
    """Stop the clock of a tokenizer's template, or of each that it has by name; None has it go on.

    Args:
        template: Its text, or texts by name; nothing is done where there is none.
        date: The moment, as ``[data] date`` has it.
    """
    for text in template.values() if isinstance(template, dict) else [template]:
        if text and asks(text) and (found := _compiled(text)) is not None:
            if date is None:
                found.pop(_NAME, None)
            else:
                found[_NAME] = datetime.fromisoformat(date).strftime


def _compiled(text: str) -> MutableMapping[str, Any] | None:
    """Return the globals of a template; None of one that is no Jinja: whoever is to use it says so."""
    from jinja2.exceptions import TemplateError

    try:
        return _globals(text)
    except (TemplateError, RecursionError):
        return None


@contextmanager
def going(text: str) -> Iterator[None]:
    """Have a template's clock go on for a while, as it does for whoever runs the model later."""
    if not asks(text):
        yield
        return
    before = _globals(text).pop(_NAME, None)
    try:
        yield
    finally:
        if before is not None:
            _globals(text)[_NAME] = before


def _globals(text: str) -> MutableMapping[str, Any]:
    from transformers.utils import chat_template_utils

    found: MutableMapping[str, Any] = chat_template_utils._compile_jinja_template(text).globals.maps[0]  # noqa: SLF001
    return found
