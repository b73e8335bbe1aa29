"""Judging answers by their row's own answer: the metrics that forge brings.

Each takes answers and references and returns one value for each, or None where a row does not count. Exact match and F1
are those of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, without punctuation and the English articles.
ROUGE is Lin's (2004) as the package ``rouge-score`` counts it, F1 of word n-grams or of the longest common subsequence,
without stemming; words are of any script here, where that package knows a to z and digits only.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"[^\W_]+")
_THOUGHT = "</think>"


def normalised(text: str) -> str:
    """Return a text as SQuAD compares it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, reference: str) -> float:
    """Return 1 if both are the same after SQuAD's normalisation, else 0."""
    return float(normalised(answer) == normalised(reference))


def f1(answer: str, reference: str) -> float:
    """Return the F1 of the words that both share; 1 if neither has any."""
    said, right = normalised(answer).split(), normalised(reference).split()
    if not said or not right:
        return float(said == right)
    return _f1((Counter(said) & Counter(right)).total(), len(said), len(right))


def rouge_n(answer: str, reference: str, n: int) -> float:
    """Return ROUGE-N: the F1 of shared n-grams of words."""
    said, right = (_grams(_words(text), n) for text in (answer, reference))
    return _f1((said & right).total(), said.total(), right.total())


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L: the F1 of the longest common subsequence of words."""
    said, right = _words(answer), _words(reference)
    return _f1(_common_subsequence(said, right), len(said), len(right))


def json_valid(answer: str, reference: str) -> float:  # noqa: ARG001 - a metric's signature
    """Return 1 if the whole answer is JSON (RFC 8259), white space around it apart; a code fence is none."""
    return float(_json(answer) is not _NOTHING)


def json_keys(answer: str, reference: str) -> float | None:
    """Return 1 if the answer is a JSON object with exactly the reference's keys; None if the reference is no object."""
    right, said = _json(reference), _json(answer)
    if not isinstance(right, dict):
        return None
    return float(isinstance(said, dict) and said.keys() == right.keys())


def pass_at_k(count: int, right: int, k: int) -> float:
    """Return the chance that at least one of ``k`` answers passes, unbiased: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), equation 1. Drawing k answers once instead would be far noisier, and
    1 - (1 - c/n)^k too low.

    Args:
        count: How many answers there are, n ≥ k.
        right: How many of them pass, c.
        k: How many may be tried.
    """
    return 1.0 - comb(count - right, k) / comb(count, k)


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of a built-in metric.

    Attributes:
        judge: Takes an answer and its reference.
        about: What it is, for the documentation.
    """

    judge: Callable[[str, str], float | None]
    about: str


METRICS: Mapping[str, Mapping[str, Metric]] = {
    "exact-match": {
        "exact-match": Metric(exact_match, "the answer is the reference, but for case, punctuation and articles")
    },
    "f1": {"f1": Metric(f1, "F1 of the words that answer and reference share, normalised alike")},
    "rouge": {
        "rouge-1": Metric(partial(rouge_n, n=1), "F1 of the words that both share"),
        "rouge-2": Metric(partial(rouge_n, n=2), "F1 of the pairs of words that both share"),
        "rouge-L": Metric(rouge_l, "F1 of the longest sequence of words, gaps allowed, that both share"),
    },
    "json": {
        "json": Metric(json_valid, "the whole answer is JSON (RFC 8259); a code fence around it is none"),
        "json-keys": Metric(json_keys, "a JSON object with exactly the reference's keys, where that is an object"),
    },
}
"""What ``[eval] metrics`` knows by name, and the values that each gives. ``pass@k`` and functions come beside them."""


def judged(name: str, answers: Sequence[str], references: Sequence[str | None]) -> dict[str, list[float | None]]:
    """Judge answers by a built-in metric; a row without a reference does not count.

    What a model thought before it answered is left out, unless the reference holds thoughts too.
    """
    return {
        value: [
            None if reference is None else metric.judge(_spoken(answer, reference), reference)
            for answer, reference in zip(answers, references, strict=True)
        ]
        for value, metric in METRICS[name].items()
    }


def _spoken(answer: str, reference: str) -> str:
    return answer if _THOUGHT in reference else answer.rpartition(_THOUGHT)[2]


def _f1(shared: int, said: int, right: int) -> float:
    return 2 * shared / (said + right) if shared else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, row by row of the usual table."""
    row = [0] * (len(second) + 1)
    for one in first:
        corner = 0
        for at, other in enumerate(second, 1):
            corner, row[at] = row[at], corner + 1 if one == other else max(row[at], row[at - 1])
    return row[-1]


_NOTHING = object()


def _json(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)  # Python reads NaN and Infinity, which are no JSON

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _NOTHING


PASS = re.compile(r"pass@([1-9]\d*)")


def is_function(name: str) -> bool:
    """Whether a metric's name refers to a function."""
    return ":" in name or name.endswith(".py")
