"""The nearest of many words, for mistakes of spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of the words that is most like a word; None if none is much like it.

    >>> nearest("lenght", ["regex", "length"])
    'length'
    """
    import difflib  # only mistakes pay for it

    return next(iter(difflib.get_close_matches(word, list(words), n=1)), None)


def alike(word: str, words: Iterable[str]) -> list[str]:
    """Return up to three of the words that are somewhat like a word, the nearest first: for names of files."""
    import difflib  # only mistakes pay for it

    return difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)


def did_you_mean(word: str, words: Iterable[str], otherwise: str) -> str:
    """Ask whether the nearest of the words was meant, or say something else.

    >>> did_you_mean("lenght", ["regex", "length"], "there are two")
    'did you mean length?'
    """
    near = nearest(word, words)
    return f"did you mean {near}?" if near else otherwise
