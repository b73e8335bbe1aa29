"""HTML in which whatever is not markup is escaped, so that no caller has to remember it.

A report shows model outputs, file names and messages of libraries. None of them may become markup, hide text or turn
its direction around, whatever they hold. So text becomes markup only here, and :class:`Markup` is never made from data.
"""

from __future__ import annotations

import html
import re

NONE = "–"  # noqa: RUF001 - a dash, where a table has no value

UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, marks that change the direction of text, letters without width, and halves of surrogate pairs."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return a value as HTML text; characters that would not be seen are shown by their numbers."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(UNSEEN.sub(_shown, str(value))))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: The element's name.
        children: Its content; None and False are left out, and all but :class:`Markup` is escaped.
        attributes: By name; ``class_`` is class and ``aria_label`` is aria-label. None and False are left out, True is
            an attribute without a value.
    """
    told = "".join(
        f" {_attribute(key)}" if value is True else f' {_attribute(key)}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{told}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Return elements and texts one after another; None and False are left out."""
    return Markup("".join(escape(child) for child in children if child is not None and child is not False))


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _shown(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
