"""The harness's results as forge tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from forge.text.evaluation import measured
from forge_lm_eval.numbers import side_by_side
from forge_lm_eval.tasks import Exam


@dataclass
class Task:
    task_name: str


@dataclass
class Group:
    tasks: list[Task]

    def get_all_tasks(self) -> list[Task]:
        return self.tasks


def exam(*shown: str, **groups: list[str]) -> Exam:
    found = {name: Group([Task(task) for task in tasks]) for name, tasks in groups.items()}
    return Exam(None, [], found, {}, list(shown))


def result(name: str, values: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    samples = {name: [{"filter": "none", **row} for row in rows]}
    return {"results": {name: values}, "samples": samples, "n-samples": {name: {"effective": len(rows)}}}


def test_a_mean_has_the_interval_of_a_share_and_is_compared_question_by_question() -> None:
    base = result("t", {"alias": "t", "acc,none": 0.25, "acc_stderr,none": 0.2}, [{"acc": at < 1} for at in range(4)])
    tuned = result("t", {"alias": "t", "acc,none": 1.0, "acc_stderr,none": 0.0}, [{"acc": 1.0} for _ in range(4)])
    found = side_by_side(exam("t"), {"base": base, "tuned": tuned}, seed=1)
    assert list(found) == ["lm-eval:t acc"]
    entry = found["lm-eval:t acc"]
    assert entry["tuned"]["low"] < 1, "four of four are no certainty"
    assert entry["difference"]["value"] == 0.75
    assert entry["difference"]["n"] == 4
    assert all(each["share"] for each in entry.values())


def test_what_is_no_mean_has_the_harness_error() -> None:
    rows = [{"perplexity": (-3.0, 2)} for _ in range(4)]
    values = {"word_perplexity,none": 20.0, "word_perplexity_stderr,none": 3.0}
    found = side_by_side(
        exam("t"),
        {"base": result("t", values, rows), "tuned": result("t", {**values, "word_perplexity,none": 16.0}, rows)},
        1,
    )
    entry = found["lm-eval:t word_perplexity"]
    assert entry["base"]["stderr"] == 3.0
    assert entry["difference"]["value"] == -4.0
    assert entry["difference"]["stderr"] == pytest.approx(18**0.5)
    assert not entry["base"]["share"]


def test_a_value_without_an_error_is_shown_without_an_interval() -> None:
    values = {"bleu,none": 20.0, "bleu_stderr,none": "N/A"}
    found = side_by_side(exam("t"), {"tuned": result("t", values, [{"bleu": ("a", "b")}])}, 1)
    assert measured(found) == [["metric", "tuned", "rows"], ["lm-eval:t bleu", "20", "1"]]


def test_a_group_counts_the_questions_of_its_tasks_where_that_is_what_it_means() -> None:
    rows = {"a": [1.0, 0.0], "b": [1.0]}
    samples = {name: [{"filter": "none", "acc": value} for value in each] for name, each in rows.items()}
    sizes = {name: {"effective": len(each)} for name, each in rows.items()}

    def of(value: float) -> dict[str, Any]:
        told = {"acc,none": value, "acc_stderr,none": 0.1}
        return {"results": {}, "groups": {"g": told}, "samples": samples, "n-samples": sizes}

    by_size = side_by_side(exam("g", g=["a", "b"]), {"tuned": of(2 / 3)}, 1)["lm-eval:g acc"]["tuned"]
    assert (by_size["share"], by_size["n"]) == (True, 3)
    by_task = side_by_side(exam("g", g=["a", "b"]), {"tuned": of(0.75)}, 1)["lm-eval:g acc"]["tuned"]
    assert (by_task["value"], by_task["stderr"], by_task["n"]) == (0.75, 0.1, 3)
