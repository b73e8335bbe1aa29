"""Metrics and intervals: numbers that others have published, or that can be worked out by hand."""

from __future__ import annotations

import itertools
import math
import random
from statistics import fmean

import pytest

from forge.text import intervals
from forge_huggingface.evaluation.metrics import (
    METRICS,
    exact_match,
    f1,
    json_keys,
    json_valid,
    judged,
    pass_at_k,
    rouge_n,
)
from forge_huggingface.evaluation.metrics import rouge_l as rouge_longest


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "shared"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1, 1),  # articles, case and punctuation do not count
        ("in the Eiffel tower", "Eiffel Tower", 0, 0.8),
        ("Paris", "London", 0, 0),
        ("", "", 1, 1),
        ("", "Paris", 0, 0),
        ("a cat sat", "the cat sat on a mat", 0, 2 / 3),
        ("Grüße aus Köln", "grüße aus köln!", 1, 1),
    ],
)
def test_exact_match_and_f1_are_those_of_squad(answer: str, reference: str, exact: float, shared: float) -> None:
    assert exact_match(answer, reference) == exact
    assert f1(answer, reference) == pytest.approx(shared)


# Answer, reference, and what rouge-score 0.1.2 gives without stemming: rouge1, rouge2, rougeL F-measures.
ROUGE = [
    ("the cat sat on the mat", "the cat lay on a mat", 0.6666666666666666, 0.2, 0.6666666666666666),
    ("police killed the gunman", "the gunman killed police", 1.0, 0.3333333333333333, 0.5),
    ("A B-C d, e!", "a b c d f", 0.8000000000000002, 0.75, 0.8000000000000002),
    ("one", "one", 1.0, 0.0, 1.0),
    ("nothing here", "", 0.0, 0.0, 0.0),
    ("x y z x y z", "x y z", 0.6666666666666666, 0.5714285714285715, 0.6666666666666666),
]


@pytest.mark.parametrize(("answer", "reference", "one", "two", "longest"), ROUGE)
def test_rouge_is_that_of_rouge_score(answer: str, reference: str, one: float, two: float, longest: float) -> None:
    assert rouge_n(answer, reference, 1) == pytest.approx(one)
    assert rouge_n(answer, reference, 2) == pytest.approx(two)
    assert rouge_longest(answer, reference) == pytest.approx(longest)


def test_rouge_agrees_with_rouge_score_on_random_texts() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    rng = random.Random(0)
    for _ in range(200):
        answer, reference = (" ".join(rng.choices("abcdefg", k=rng.randrange(12))) for _ in range(2))
        expected = scorer.score(reference, answer)
        assert rouge_n(answer, reference, 1) == pytest.approx(expected["rouge1"].fmeasure)
        assert rouge_n(answer, reference, 2) == pytest.approx(expected["rouge2"].fmeasure)
        assert rouge_longest(answer, reference) == pytest.approx(expected["rougeL"].fmeasure)


def test_rouge_knows_words_of_other_scripts() -> None:
    assert rouge_n("Привет мир", "привет, мир!", 1) == 1


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ('{"a": 1}', 1),
        (" [1, 2]\n", 1),
        ('"text"', 1),
        ("null", 1),
        ("", 0),
        ("{'a': 1}", 0),
        ('```json\n{"a": 1}\n```', 0),
        ('{"a": 1} and more', 0),
        ("NaN", 0),
        ("[" * 10**5, 0),
    ],
)
def test_json_is_the_whole_answer_or_it_is_none(answer: str, valid: float) -> None:
    assert json_valid(answer, "") == valid


def test_keys_count_where_the_reference_is_an_object() -> None:
    assert json_keys('{"b": 1, "a": 2}', '{"a": 0, "b": 0}') == 1
    assert json_keys('{"a": 1}', '{"a": 0, "b": 0}') == 0
    assert json_keys("no json", '{"a": 0}') == 0
    assert json_keys('{"a": 1}', "no json") is None


def test_thoughts_are_not_part_of_an_answer() -> None:
    said = "<think>Berlin? No.</think>\n\nParis"
    assert judged("exact-match", [said], ["Paris"]) == {"exact-match": [1.0]}
    assert judged("exact-match", [said], [said]) == {"exact-match": [1.0]}
    assert judged("exact-match", ["Paris"], [None]) == {"exact-match": [None]}


@pytest.mark.parametrize(("count", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 2), (7, 5, 3)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_that_hold_a_right_answer(count: int, right: int, k: int) -> None:
    answers = [True] * right + [False] * (count - right)
    choices = list(itertools.combinations(answers, k))
    assert pass_at_k(count, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_every_metric_of_the_table_gives_a_number_between_0_and_1() -> None:
    for name in METRICS:
        for values in judged(name, ['{"a": "the sea"}', ""], ['{"a": "a sea"}', "x"]).values():
            assert all(value is None or 0 <= value <= 1 for value in values)


# Intervals


def test_wilson_and_newcombe_give_published_numbers() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 81 of 263, and 0 of 20 by Wilson's method.
    assert intervals.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert intervals.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_paired_interval_holds_the_true_difference_in_about_95_of_100_cases() -> None:
    rng, held, cases = random.Random(1), 0, 1500
    for _ in range(cases):
        pairs = [(rng.random() < 0.2) for _ in range(40)]
        first = [float((hard and rng.random() < 0.3) or (not hard and rng.random() < 0.8)) for hard in pairs]
        second = [float(one or rng.random() < 0.4) for one in first]
        truth = (1 - (0.2 * 0.3 + 0.8 * 0.8)) * 0.4
        low, high = intervals.newcombe(second, first)
        held += low <= truth <= high
    assert 0.93 <= held / cases <= 0.985


def test_all_right_is_not_certainty() -> None:
    found = intervals.summary([1.0] * 24, seed=0, binary=True)
    assert found["value"] == 1
    assert found["low"] == pytest.approx(0.862, abs=1e-3)
    gained = intervals.difference([0.0] * 24, [1.0] * 24, seed=0, binary=True)
    assert gained["value"] == 1
    assert 0.7 < gained["low"] < 0.95


def test_the_bootstrap_has_the_standard_error_of_a_mean() -> None:
    rng = random.Random(3)
    values = [rng.gauss(5, 2) for _ in range(400)]
    found = intervals.summary(values, seed=0)
    error = math.sqrt(sum((value - fmean(values)) ** 2 for value in values) / 399 / 400)
    assert found["value"] == pytest.approx(fmean(values))
    assert found["stderr"] == pytest.approx(error, rel=0.06)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_means_over_tokens_weigh_rows_by_their_tokens() -> None:
    found = intervals.summary([10.0, 1.0, None], weights=[10.0, 2.0, 0.0], seed=0)
    assert found["value"] == pytest.approx(11 / 12)
    assert found["n"] == 2


def test_rows_that_do_not_count_for_one_model_do_not_count_for_the_difference() -> None:
    found = intervals.difference([0.5, None, 0.2], [0.7, 1.0, 0.3], seed=0)
    assert found["value"] == pytest.approx(0.15)
    assert found["n"] == 2


def test_a_paired_difference_is_surer_than_two_separate_numbers() -> None:
    rng = random.Random(5)
    first = [rng.random() for _ in range(100)]
    second = [value + 0.02 for value in first]
    gained = intervals.difference(first, second, seed=0)
    assert gained["low"] == pytest.approx(0.02)
    assert intervals.summary(first, seed=0)["stderr"] > 0.01
