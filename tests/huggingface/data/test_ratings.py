"""Rated rows as a set: whose answer a row is measured with, and what is said of rows that teach little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.data.ratings import foreign, two_answers
from support.rows import asked, ratings, said

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Project

    Write = Callable[[Sequence[Any]], None]


def rated(answers: Sequence[str], labels: Sequence[bool]) -> list[dict[str, Any]]:
    """Return rated rows with these answers."""
    both = zip(answers, labels, strict=True)
    return [
        {"prompt": asked(index), "completion": said(answer), "label": label}
        for index, (answer, label) in enumerate(both)
    ]


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ("abc", "cab"),  # as TRL has it: of the row before, and of the last for the first
        ("aabb", "bbaa"),  # those that TRL would give a row's own
        ("abab", "baba"),
        ("c", "a"),  # a last batch of one row
        ("aa", "bb"),
        ("bb", "aa"),
    ],
)
def test_a_row_is_measured_with_an_answer_that_is_not_its_own(answers: str, wanted: str) -> None:
    ids = [[ord(each)] for each in answers]
    assert foreign(ids, [[ord("a")], [ord("b")]]) == [[ord(each)] for each in wanted]


def test_two_answers_are_the_first_that_differ() -> None:
    assert two_answers([[1], [1], [2], [3]]) == [[1], [2]]
    assert two_answers([[1], [1]]) == [[1]]


@pytest.mark.parametrize("held_out", [False, True])
def test_a_last_row_that_is_alone_in_its_batch_is_not_measured_with_its_own_reward(
    project: Project, rows: Write, held_out: bool
) -> None:
    # Of good rows alone the rewards rise, and with them a divergence that is measured on them.
    rows(rated([f"{word} green sea" for word in ("Paris", "five", "morning")], [True] * 3))
    data = {"eval_path": "held.jsonl"} if held_out else {}
    (project.folder / "held.jsonl").write_text((project.folder / "rows.jsonl").read_text().splitlines()[2] + "\n")
    options = {"method": "kto", "max_steps": 12, "save_steps": 12, "learning_rate": 0.05, "beta": 1.0}
    project.write(data=data, train={**options, **({"eval_steps": 12} if held_out else {})})
    done = project.perform()
    assert done.code == 0, done.printed
    if held_out:
        (found,) = done.of_kind("eval")
        kl, reward = found["eval_kl"], found["eval_rewards/chosen"]
    else:
        alone = done.of_kind("step")[-1]  # steps of two rows and of one take turns
        kl, reward = alone["kl"], alone["rewards/chosen"]
    assert reward > 1
    assert kl != pytest.approx(reward, rel=0.01)


@pytest.mark.parametrize(
    ("made", "keys", "words", "do"),
    [
        (
            rated(["the sea"] * 4, [True, False] * 2),
            {},
            "the answers of all 4 training rows are the same",
            'loss_type = "apo_zero_unpaired"',
        ),
        (ratings(1), {}, "the answers of all 1 training rows are the same", 'loss_type = "apo_zero_unpaired"'),
        (ratings(), {"desirable_weight": 0.0, "undesirable_weight": 0.0}, "their weight is 0", "raise"),
    ],
)
def test_ratings_from_which_nothing_can_be_learned_are_refused_before_the_model_is_loaded(
    project: Project, rows: Write, made: list[Any], keys: dict[str, Any], words: str, do: str
) -> None:
    rows(made)
    project.write(train={"method": "kto", **keys})
    done = project.perform()
    assert words in done.error["why"]
    assert do in done.error["do"]
    assert not done.of_kind("loaded")


def test_rows_that_are_sorted_by_label_are_told(project: Project, rows: Write) -> None:
    rows(sorted(ratings(8), key=lambda row: row["label"]))
    project.write(train={"method": "kto", "max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    (warning,) = done.of_kind("warning")
    assert "no batch of 2 has good and bad rows" in warning["message"]


def test_a_loss_that_compares_no_rows_takes_answers_that_are_all_the_same(project: Project, rows: Write) -> None:
    rows(rated(["the sea"] * 4, [True, False] * 2))
    project.write(train={"method": "kto", "loss_type": "apo_zero_unpaired", "max_steps": 1, "save_steps": 1})
    assert project.perform().code == 0
