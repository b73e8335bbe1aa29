"""What a cut at ``max_seq_length`` leaves nothing to learn of, and pictures that nobody sees, are told by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.rows import ONLINE, asked, pairs, prompts, ratings, said

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Project

    Write = Callable[[Sequence[Any]], None]

SHORT = {"max_steps": 1, "save_steps": 1}
LONG = "five " * 200
CUT = [{"prompt": asked(index), "chosen": said(f"{LONG}green"), "rejected": said(f"{LONG}red")} for index in range(7)]
PICTURE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which colour?"}]}]


@pytest.mark.parametrize("method", ["dpo", "orpo", "cpo", "reward"])
def test_answers_that_only_a_cut_makes_equal_are_told_with_their_number_and_rows(
    project: Project, rows: Write, method: str
) -> None:
    rows([*pairs(3), *CUT])
    project.write(data={"on_long_row": "truncate"}, train={"method": method, **SHORT})
    error = project.perform().error
    assert error["what"] == "rows.jsonl:4 has answers that are the same in their first 128 tokens, prompt included"
    first = ", ".join(f"rows.jsonl:{number}" for number in range(4, 9))
    bad = f"7 of all 10 rows are bad, 7 by a cut that makes their answers equal: {first}, …"
    assert error["why"] == f"max_seq_length cuts off where they differ, {bad}"
    assert error["do"] == 'raise max_seq_length, or set on_long_row = "drop"'


def test_pairs_that_a_cut_makes_equal_are_told_where_bad_rows_are_dropped(project: Project, rows: Write) -> None:
    rows([*pairs(3), *CUT[:2], {"prompt": asked(0), "chosen": said("a"), "rejected": said("a")}])
    data = {"on_long_row": "truncate", "on_bad_row": "drop", "max_bad_rows": 5}
    project.write(data=data, train={"method": "dpo", **SHORT})
    (warning,) = [each for each in project.perform().of_kind("warning") if "equal" in each["message"]]
    what = "3 rows were dropped as bad, 2 by a cut that makes their answers equal"
    assert warning["message"] == f"training rows: {what}: rows.jsonl:4, rows.jsonl:5"


def test_ratings_that_only_a_cut_makes_contradict_each_other_are_told(project: Project, rows: Write) -> None:
    cut = [
        {"prompt": asked(0), "completion": said(f"{LONG}{end}"), "label": good}
        for end, good in (("green", True), ("red", False), ("sea", True))
    ]
    rows([*cut, *ratings(6)])
    project.write(data={"on_long_row": "truncate"}, train={"method": "kto", **SHORT})
    told = [each["message"] for each in project.perform().of_kind("warning")]
    what = "a cut leaves 1 row rated otherwise than the same prompt and answer before: rows.jsonl:2"
    assert f"training rows: {what}" in told


@pytest.mark.parametrize("method", ["grpo", "rloo", "distill"])
def test_prompts_with_pictures_are_refused_where_the_model_sees_none(
    project: Project, rows: Write, method: str
) -> None:
    rows([{"prompt": PICTURE}])
    own = {"teacher_model_name_or_path": "model", "max_completion_length": 8} if method == "distill" else ONLINE
    project.write(train={"method": method, **own, **SHORT})
    error = project.perform().error
    assert error["what"] == "rows.jsonl:1 has images"
    assert error["why"] == "this model takes text only, 1 of all 1 rows are bad"


def test_a_column_of_pictures_that_only_rewards_get_is_told(project: Project, rows: Write) -> None:
    rows([{**row, "images": images} for row, images in zip(prompts(3), (["a.png"], None, []), strict=True)])
    project.write(train={"method": "grpo", **ONLINE, **SHORT})
    told = [each["message"] for each in project.perform().of_kind("warning")]
    what = "the column images is for rewards only: this model takes text only"
    assert f"training rows: in 1 row {what}" in told
