"""Text of others, such as rows, answers and names of files, so that it does nothing but be read.

A terminal obeys control characters: it renames its window, clears itself, writes to the clipboard, hides what follows.
A page turns the direction of text around. Both show them by their numbers instead.
"""

from __future__ import annotations

import re

UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
    "|\r(?!\n)"
)
"""Control characters, marks that change the direction of text, letters without width, and halves of surrogate pairs."""


def visible(text: str) -> str:
    r"""Return a text in which what would not be seen is shown by its number; line breaks and tabs stay.

    The form is JSON's and Python's, so that JSON with such an escape is still JSON.

    >>> visible("\x1b[2Jgone")
    '\\u001b[2Jgone'
    """
    return UNSEEN.sub(lambda found: numbered(found[0]), text)


def numbered(text: str) -> str:
    """Return the letters of a text by their numbers, those above U+FFFF as the two halves that JSON writes."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
