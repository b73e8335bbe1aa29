"""Rows of texts: which columns they go by, what is refused, and what is chosen by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from support.sentence_transformers import NEEDED
from support.tiny_encoder import labelled, pairs, scored, triplets

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Data, Run
    from support.projects import Project

pytestmark = NEEDED


def collated(project: Project) -> tuple[Data, Run]:
    run, _ = project.prepare()
    return Stages(run, settle(load_job(run.plan.job), run.plan.decisions)).collate(), run


@pytest.mark.parametrize(
    ("rows", "method", "columns", "loss"),
    [
        (pairs(), "embedding", ["anchor", "positive"], "MultipleNegativesRankingLoss"),
        (triplets(), "embedding", ["anchor", "positive", "negative_1"], "MultipleNegativesRankingLoss"),
        (scored(), "embedding", ["anchor", "positive", "label"], "CoSENTLoss"),
        (labelled(), "embedding", ["anchor", "positive", "label"], "ContrastiveLoss"),
        (labelled(), "reranker", ["anchor", "positive", "label"], "BinaryCrossEntropyLoss"),
        ([{"query": f"q{at}", "document": str(at), "negatives": ["b", "c"]} for at in range(8)], "reranker",
         ["anchor", "positive", "negative_1", "negative_2"], "MultipleNegativesRankingLoss"),
    ],
)  # fmt: skip
def test_the_columns_say_what_rows_are_and_these_which_loss_is_taken(
    texts: Callable[..., Project], rows: list[Any], method: str, columns: list[str], loss: str
) -> None:
    data, run = collated(texts(rows, method))
    assert data.train.column_names == columns
    decided = {decision.key: decision.value for decision in run.plan.decisions}
    assert decided["train.loss"] == loss
    assert decided["train.batch_sampler"] == ("no_duplicates" if "Multiple" in loss else "batch_sampler")
    assert len(data.train) + len(data.eval["eval"]) == len(rows)
    assert data.preview
    (shown, *_) = data.preview(data, 1)
    assert shown["parts"][0]["segments"][0]["text"].startswith("[CLS]")


@pytest.mark.parametrize(
    ("rows", "tables", "words"),
    [
        ([{"text": "a"}] * 8, {}, "has no column for anchor"),
        ([{"anchor": "a"}] * 8, {}, "has no column for positive"),
        ([{"anchor": "", "positive": "b"}] * 8, {}, "has no text in 'anchor'"),
        ([{"anchor": "a", "positive": "b", "score": "high"}] * 8, {}, "has no number in 'score'"),
        ([*scored(6), *pairs(2)], {}, "2 rows of 8 have no score and no label"),
        ([*triplets(6), *pairs(2)], {}, "rows have from 0 to 1 negatives"),
        ([{**row, "score": 1.0} for row in triplets()], {}, "has negatives and a number"),
        (pairs(), {"train": {"loss": "CoSENTLoss"}}, 'loss = "CoSENTLoss" cannot be used'),
        (pairs(), {"train": {"prompts": {"negative": "no: "}}}, "prompts.negative is for a column that no row has"),
        (labelled(), {"train": {"scale": 10.0}}, "scale has no effect: ContrastiveLoss"),
        (pairs(), {"data": {"columns": {"query": "anchor"}}}, "'query' is no name of a column"),
        (pairs(), {"data": {"columns": {"anchor": "asked"}}}, "has no column 'asked'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_the_model_is_loaded(
    texts: Callable[..., Project], rows: list[Any], tables: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError) as error:
        collated(texts(rows, **tables))
    assert words in str(error.value)


def test_columns_go_by_other_names_and_what_is_not_used_is_told(texts: Callable[..., Project]) -> None:
    rows = [{"asked": row["anchor"], "text": row["positive"], "id": at} for at, row in enumerate(pairs())]
    data, _ = collated(texts(rows, data={"columns": {"anchor": "asked", "positive": "text"}}))
    (source,) = data.summary["sources"]
    assert source["columns"] == {"anchor": "asked", "positive": "text"}
    assert source["ignored"] == ["id"]
    assert data.train[0]["anchor"] in {row["asked"] for row in rows}


def test_no_query_is_both_held_out_and_trained_on(texts: Callable[..., Project]) -> None:
    data, _ = collated(texts(labelled(), "reranker", data={"eval_size": 0.25}))
    assert not set(data.train["anchor"]) & set(data.eval["eval"]["anchor"])
    assert len(data.eval["eval"]) == 8


def test_matryoshka_lengths_beyond_the_embedding_are_told_before_the_model_is_loaded(
    texts: Callable[..., Project],
) -> None:
    project = texts(pairs(), train={"matryoshka_dims": [64]})
    done = project.perform()
    (objection,) = done.of_kind("error")
    assert "matryoshka_dims: 64 is more than the 16 numbers" in objection["message"]
    assert not done.of_kind("loaded")
