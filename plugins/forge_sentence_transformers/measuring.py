"""What is measured on held-out rows: rankings where a row has what fits, correlations and precision where it is rated.

While a model trains, sentence-transformers' own evaluators measure; afterwards the same numbers are taken row by row,
so that each comes with an interval. Normalised discounted cumulative gain and reciprocal rank are of the first ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge.text.intervals import difference, summary
from forge_sentence_transformers.shapes import RERANKER, Shape

if TYPE_CHECKING:
    from forge.api import Job, Run

TOP = 10
"""How many of a ranking count."""

BESIDE = 20
"""How many documents of other rows a reranker is given where a row has none that do not fit."""

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Search:
    """Queries with the documents that are ranked for them.

    Attributes:
        queries: What is asked, each once.
        documents: All documents, each once.
        right: For each query, which documents answer it.
        candidates: For each query, which are ranked; None for all.
    """

    queries: list[str]
    documents: list[str]
    right: list[frozenset[int]]
    candidates: list[list[int]] | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """Pairs of texts, each with a number that says how well they go together.

    Attributes:
        first: The first texts.
        second: The second.
        ratings: The numbers.
        binary: Whether these are 0 and 1.
    """

    first: list[str]
    second: list[str]
    ratings: list[float]
    binary: bool


def asked(shape: Shape, rows: Any, *, reranks: bool) -> Search | Rated:
    """Return what held-out rows ask of a model.

    Labelled rows of a reranker are rankings where queries have documents of both kinds.
    """
    columns = {name: list(rows[name]) for name in rows.column_names}
    if not shape.rated:
        wrong = [columns[name] for name in shape.columns[2:]]
        return _search(columns["anchor"], columns["positive"], list(zip(*wrong, strict=True)), near=reranks)
    first, second, ratings = columns["anchor"], columns["positive"], [float(each) for each in columns["label"]]
    binary = shape.kind == "labelled"
    if reranks and binary and (found := _grouped(first, second, ratings)):
        return found
    return Rated(first, second, ratings, binary)


def _search(
    anchors: Sequence[str], positives: Sequence[str], negatives: Sequence[Sequence[str]], *, near: bool
) -> Search:
    """Return rows as a search: in all documents, or for a reranker in a row's own and some of its neighbours'."""
    queries = list(dict.fromkeys(anchors))
    documents = list(dict.fromkeys([*positives, *(text for row in negatives for text in row)]))
    number, place = ({text: at for at, text in enumerate(every)} for every in (queries, documents))
    right: list[set[int]] = [set() for _ in queries]
    own: list[dict[int, None]] = [{} for _ in queries]
    for at, (anchor, positive) in enumerate(zip(anchors, positives, strict=True)):
        query = number[anchor]
        right[query].add(place[positive])
        own[query][place[positive]] = None
        own[query].update(dict.fromkeys(place[text] for text in (negatives[at] if negatives else ())))
    candidates = None
    if near:
        others = [place[text] for text in positives]
        candidates = []
        for query, found in enumerate(own):
            beside = dict(found)
            for step in range(len(others)):
                if negatives or len(beside) >= BESIDE + len(right[query]):
                    break
                beside[others[(query + step) % len(others)]] = None
            candidates.append(list(beside))
    return Search(queries, documents, [frozenset(each) for each in right], candidates)


def _grouped(queries: Sequence[str], documents: Sequence[str], labels: Sequence[float]) -> Search | None:
    """Return labelled pairs as a search, of the queries that have documents of both kinds; None if none has."""
    groups: dict[str, dict[str, float]] = {}
    for query, document, label in zip(queries, documents, labels, strict=True):
        groups.setdefault(query, {})[document] = label
    both = {query: each for query, each in groups.items() if len(set(each.values())) > 1}
    if not both:
        return None
    every = list(dict.fromkeys(document for each in both.values() for document in each))
    place = {text: at for at, text in enumerate(every)}
    right = [frozenset(place[text] for text, label in each.items() if label) for each in both.values()]
    return Search(list(both), every, right, [[place[text] for text in each] for each in both.values()])


def evaluator(job: Job, run: Run, rows: Any) -> Any:
    """Return sentence-transformers' evaluator for held-out rows, for evaluations while a model trains."""
    from sentence_transformers.cross_encoder import evaluation as of_rerankers
    from sentence_transformers.sentence_transformer import evaluation as of_embeddings

    from forge_sentence_transformers.collate import shape_of_run

    reranks = job.train.method == RERANKER
    found = asked(shape_of_run(run), rows, reranks=reranks)
    size: dict[str, Any] = {"batch_size": job.train.options["per_device_eval_batch_size"], "write_csv": False}
    query, document = prompts(job)
    if isinstance(found, Search):
        if reranks:
            return of_rerankers.CrossEncoderRerankingEvaluator(_samples(found), at_k=TOP, **size)
        return of_embeddings.InformationRetrievalEvaluator(
            {str(at): text for at, text in enumerate(found.queries)},
            {str(at): text for at, text in enumerate(found.documents)},
            {str(at): set(map(str, right)) for at, right in enumerate(found.right)},
            accuracy_at_k=[1],
            precision_recall_at_k=[TOP],
            query_prompt=query,
            corpus_prompt=document,
            **size,
        )
    if reranks:
        pairs = [list(pair) for pair in zip(found.first, found.second, strict=True)]
        if found.binary:
            return of_rerankers.CrossEncoderClassificationEvaluator(pairs, [*map(int, found.ratings)], **size)
        return of_rerankers.CrossEncoderCorrelationEvaluator(pairs, found.ratings, **size)
    texts = [[f"{query or ''}{text}" for text in found.first], [f"{document or ''}{text}" for text in found.second]]
    if found.binary:
        return of_embeddings.BinaryClassificationEvaluator(*texts, [*map(int, found.ratings)], **size)
    return of_embeddings.EmbeddingSimilarityEvaluator(*texts, found.ratings, **size)


def _samples(found: Search) -> list[dict[str, Any]]:
    assert found.candidates is not None
    return [
        {
            "query": query,
            "positive": [found.documents[at] for at in ranked if at in right],
            "negative": [found.documents[at] for at in ranked if at not in right],
        }
        for query, right, ranked in zip(found.queries, found.right, found.candidates, strict=True)
    ]


def prompts(job: Job) -> tuple[str | None, str | None]:
    """Return what is put before queries and before documents."""
    said = job.train.options.get("prompts") or {}
    return said.get("anchor"), said.get("positive")


Scores = Sequence[float] | Sequence[Sequence[float]]
"""Of rated pairs how alike a model finds each; of a search each query's documents, the best first, as 1 and 0."""


def scores(job: Job, model: Any, found: Search | Rated, batch_size: int) -> Scores:
    """Ask a model."""
    reranks = job.train.method == RERANKER
    if isinstance(found, Rated):
        if reranks:
            pairs = list(zip(found.first, found.second, strict=True))
            return [float(each) for each in model.predict(pairs, batch_size=batch_size, show_progress_bar=False)]
        one, two = (
            _embedded(model, texts, prompt, batch_size)
            for texts, prompt in zip((found.first, found.second), prompts(job), strict=True)
        )
        return [float(each) for each in (one * two).sum(1)]
    if reranks:
        return _reranked(model, found, batch_size)
    query, document = prompts(job)
    asked_for = _embedded(model, found.queries, query, batch_size)
    there = _embedded(model, found.documents, document, batch_size)
    return [
        _gains((row @ there.T).tolist(), range(len(found.documents)), right)
        for row, right in zip(asked_for, found.right, strict=True)
    ]


def _embedded(model: Any, texts: Sequence[str], prompt: str | None, batch_size: int) -> Any:
    return model.encode(
        list(texts), prompt=prompt, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
    )


def _reranked(model: Any, found: Search, batch_size: int) -> list[list[float]]:
    assert found.candidates is not None
    pairs = [
        (query, found.documents[at])
        for query, ranked in zip(found.queries, found.candidates, strict=True)
        for at in ranked
    ]
    said = iter(model.predict(pairs, batch_size=batch_size, show_progress_bar=False).tolist())
    gains = []
    for ranked, right in zip(found.candidates, found.right, strict=True):
        gains.append(_gains([next(said) for _ in ranked], ranked, right))
    return gains


def _gains(said: Sequence[float], ranked: Sequence[int], right: frozenset[int]) -> list[float]:
    """Return the ranking of documents as 1 and 0, the best first. Of equal ones the wrong come first."""
    order = sorted(range(len(said)), key=lambda at: (-said[at], ranked[at] in right))
    return [float(ranked[at] in right) for at in order]


def ndcg(gains: Sequence[float], right: int) -> float:
    """Return the normalised discounted cumulative gain of the first ten (Järvelin and Kekäläinen 2002).

    >>> ndcg([1.0, 0.0], 1), round(ndcg([0.0, 1.0], 1), 4)
    (1.0, 0.6309)
    """
    best = sum(1 / math.log2(at + 2) for at in range(min(right, TOP)))
    return sum(gain / math.log2(at + 2) for at, gain in enumerate(gains[:TOP])) / best


def reciprocal_rank(gains: Sequence[float]) -> float:
    """Return one over the rank of the first right document of the first ten; 0 if none is there.

    >>> reciprocal_rank([0.0, 1.0, 1.0])
    0.5
    """
    return next((1 / (at + 1) for at, gain in enumerate(gains[:TOP]) if gain), 0.0)


def measure(found: Search | Rated, said: Mapping[str, Scores], seed: int) -> dict[str, dict[str, Any]]:
    """Return every metric of every model, with the difference of the last two.

    Args:
        found: What was asked.
        said: What each model gave, by its name.
        seed: For the intervals.
    """
    if isinstance(found, Search):
        rights = [len(each) for each in found.right]
        of_rows: dict[str, Callable[[Any], list[float]]] = {
            f"ndcg@{TOP}": lambda rows: [ndcg(row, right) for row, right in zip(rows, rights, strict=True)],
            f"mrr@{TOP}": lambda rows: [reciprocal_rank(row) for row in rows],
            "accuracy@1": lambda rows: [row[0] for row in rows],
        }
        return {
            name: _by_row({who: take(rows) for who, rows in said.items()}, seed, binary=name == "accuracy@1")
            for name, take in of_rows.items()
        }
    if found.binary:
        return {"average-precision": _of_all(average_precision, found, said, seed, share=True)}
    return {name: _of_all(take, found, said, seed) for name, take in (("spearman", spearman), ("pearson", pearson))}


def _by_row(values: Mapping[str, list[float]], seed: int, *, binary: bool) -> dict[str, Any]:
    every: dict[str, Any] = {name: summary(each, seed=seed, binary=binary) for name, each in values.items()}
    if len(values) > 1:
        first, second = list(values.values())[-2:]
        every["difference"] = difference(first, second, seed=seed, binary=binary)
    return {name: entry | {"share": True} for name, entry in every.items()}


def _of_all(take: Any, found: Rated, said: Mapping[str, Any], seed: int, *, share: bool = False) -> dict[str, Any]:
    """Return a number that only all rows together have, with intervals over drawn rows (Efron 1979)."""
    import numpy

    truth = numpy.asarray(found.ratings)
    models = {name: numpy.asarray(each, dtype=float) for name, each in said.items()}
    rng = numpy.random.default_rng(seed)
    drawn = [at for at in rng.integers(len(truth), size=(_RESAMPLES, len(truth))) if len(set(truth[at])) > 1]
    taken = {name: numpy.array([take(truth[at], each[at]) for at in drawn]) for name, each in models.items()}
    values = {name: take(truth, each) for name, each in models.items()}
    if len(models) > 1:
        first, second = list(models)[-2:]
        values["difference"] = values[second] - values[first]
        taken["difference"] = taken[second] - taken[first]
    entries = {}
    for name, value in values.items():
        low, high = numpy.quantile(taken[name], (0.025, 0.975)) if len(drawn) > 1 else (math.nan, math.nan)
        entries[name] = {
            "value": float(value),
            "stderr": float(taken[name].std(ddof=1)) if len(drawn) > 1 else None,
            "low": float(low),
            "high": float(high),
            "n": len(truth),
            "share": share,
        }
    return entries


def pearson(truth: Any, said: Any) -> float:
    """Return Pearson's correlation; 0 where one of the two does not vary."""
    import numpy

    one, two = truth - truth.mean(), said - said.mean()
    scale = math.sqrt(float((one**2).sum() * (two**2).sum()))
    return float(numpy.dot(one, two)) / scale if scale else 0.0


def spearman(truth: Any, said: Any) -> float:
    """Return Spearman's correlation of ranks, equal values sharing theirs."""
    from scipy.stats import rankdata

    return pearson(rankdata(truth), rankdata(said))


def average_precision(truth: Any, said: Any) -> float:
    """Return the average precision of pairs that go together, the most alike first."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, said))


def check(found: Search | Rated) -> None:
    """Refuse rows that tell nothing. Raises :class:`DataError`."""
    if isinstance(found, Rated) and len(set(found.ratings)) < 2:
        raise DataError("the held-out rows all have the same number", "nothing can be told apart by it", "take others")
