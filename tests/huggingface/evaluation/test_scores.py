"""The scores of classifiers are those of their definitions, and their intervals hold them."""

from __future__ import annotations

import numpy
import pytest

from forge_huggingface.evaluation.labels import constant, losses
from forge_huggingface.heads.labels import REGRESSION, SEVERAL, SINGLE, Labels
from forge_huggingface.heads.scores import beside, scores

THREE = Labels(SINGLE, ("a", "b", "c"))


def test_f1_is_the_mean_over_the_classes_that_occur() -> None:
    logits = numpy.eye(3)[[0, 0, 1, 1]]
    found = scores(THREE, logits, numpy.array([0, 1, 1, 1]))
    # a: precision 1/2, recall 1; b: 1 and 2/3; c neither occurs nor is told
    assert found == pytest.approx({"accuracy": 3 / 4, "f1": (2 / 3 + 4 / 5) / 2})


def test_of_several_labels_all_must_be_right() -> None:
    labels = Labels(SEVERAL, ("a", "b", "c"))
    logits = numpy.array([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    targets = numpy.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert scores(labels, logits, targets) == pytest.approx({"accuracy": 2 / 3, "f1": (2 / 3 + 1 + 0) / 3})


def test_numbers_have_an_error_and_a_correlation() -> None:
    labels, targets = Labels(REGRESSION), numpy.array([0.0, 1.0, 2.0])
    found = scores(labels, numpy.array([[1.0], [2.0], [3.0]]), targets)
    assert found == pytest.approx({"mse": 1.0, "pearson": 1.0})
    assert numpy.isnan(scores(labels, numpy.ones((3, 1)), targets)["pearson"])


@pytest.mark.parametrize("problem", [SINGLE, SEVERAL, REGRESSION])
def test_the_loss_of_each_row_is_that_of_transformers(problem: str) -> None:
    import torch
    from transformers import PretrainedConfig
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    labels = Labels(problem, () if problem == REGRESSION else ("a", "b", "c"))
    rng = numpy.random.default_rng(0)
    logits = rng.normal(size=(5, 1 if problem == REGRESSION else 3)).astype(numpy.float32)
    targets = {
        SINGLE: rng.integers(3, size=5),
        SEVERAL: rng.integers(2, size=(5, 3)).astype(numpy.float32),
        REGRESSION: rng.normal(size=5).astype(numpy.float32),
    }[problem]
    config = PretrainedConfig(problem_type=problem, num_labels=logits.shape[1])
    theirs = ForSequenceClassificationLoss(torch.tensor(targets), torch.tensor(logits), config)
    assert numpy.mean(losses(labels, logits, targets)) == pytest.approx(float(theirs), rel=1e-6)


def test_what_is_to_be_beaten_is_the_best_answer_that_never_changes() -> None:
    assert constant(THREE, {"counts": {"a": 1, "b": 3, "c": 2}})[0] == 1
    known = {"counts": {"a": 3, "b": 2, "c": 0}, "rows": 4}
    assert constant(Labels(SEVERAL, ("a", "b", "c")), known)[0].tolist() == [1, 0, 0]
    assert constant(Labels(REGRESSION), {"mean": 1.5}) == (1.5, "1.5, the mean of the training rows")


def test_an_interval_holds_its_score_and_a_score_that_cannot_be_had_is_none() -> None:
    targets = numpy.arange(40) % 3
    told = {"base": numpy.zeros(40, int), "tuned": numpy.where(numpy.arange(40) % 5, targets, 0)}
    found = beside("f1", told, targets, seed=0)
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in found.values())
    assert found["difference"]["low"] > 0
    assert beside("f1", told, targets, seed=0) == found
    flat = beside("pearson", {"base": numpy.ones(4)}, numpy.arange(4.0), seed=0)
    assert flat["base"]["value"] is None
