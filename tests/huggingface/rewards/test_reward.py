"""What a reward function may return, and what is said of one that returns or does something else."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from forge_huggingface.rewards.reward import RewardError
from forge_huggingface.rewards.score import Score, WrongReturnError, read_scores
from forge_huggingface.rewards.text import completion_text

if TYPE_CHECKING:
    from support.rewarding import Folder


@pytest.mark.parametrize(
    "returned",
    [
        [1, 0.5, None],
        (1, 0.5, None),
        [True, 0.5, {"score": None}],
        [np.float32(1), np.float64(0.5), None],
        [torch.tensor(1.0), torch.tensor([0.5]), None],
        [{"score": 1}, Score(0.5), None],
    ],
)
def test_numbers_none_and_dicts_are_scores(returned: Any) -> None:
    assert [score.score for score in read_scores(returned, 3)] == [1.0, 0.5, None]


def test_arrays_and_tensors_are_lists() -> None:
    assert [score.score for score in read_scores(np.array([1.0, 0.0]), 2)] == [1.0, 0.0]
    assert [score.score for score in read_scores(torch.tensor([1.0, 0.0]), 2)] == [1.0, 0.0]


def test_a_dict_carries_feedback_and_more() -> None:
    (score,) = read_scores([{"score": 0, "feedback": "line 3", "format": True}], 1)
    assert score == Score(0.0, "line 3", {"format": True})


@pytest.mark.parametrize(
    ("returned", "said", "index"),
    [
        (None, "it returned None and must return a list with one value a completion", None),
        (1.0, "it returned a float and must return a list with one value a completion", None),
        ("11", 'it returned the string "11" and must return a list with one value a completion', None),
        ({"score": 1}, "it returned a dict and must return a list with one value a completion", None),
        (iter(()), "it returned a tuple_iterator and must return a list with one value a completion", None),
        ([1], "it returned 1 value for 2 completions", None),
        ([1, 1, 1], "it returned 3 values for 2 completions", None),
        ([1, float("nan")], "it returned nan; None says that a reward does not apply", 1),
        ([np.inf, 1], "it returned inf; None says that a reward does not apply", 0),
        ([1, "1"], 'it returned the string "1" and must return a number, None or a dict', 1),
        ([1, [1]], "it returned a list and must return a number, None or a dict", 1),
        ([1, np.ones(2)], "it returned a ndarray and must return a number, None or a dict", 1),
        ([1, {"reward": 1}], "it returned a dict without score (it has reward)", 1),
        ([1, {}], "it returned a dict without score (it has nothing)", 1),
        ([1, 10**400], "it returned an int that is too large; None says that a reward does not apply", 1),
        ([1, -math.inf], "it returned -inf; None says that a reward does not apply", 1),
        ([1, 1j], "it returned a complex and must return a number, None or a dict", 1),
        ([1, np.str_("1")], 'it returned the string "1" and must return a number, None or a dict', 1),
        (
            (value for value in [1, 2]),
            "it returned a generator and must return a list with one value a completion",
            None,
        ),
        ({1, 2}, "it returned a set and must return a list with one value a completion", None),
        ([1, {"score": "1"}], 'it returned the string "1" and must return a number, None or a dict', 1),
        ([1, {"score": 1, "feedback": 3}], "its feedback is an int and must be a string or None", 1),
    ],
)
def test_anything_else_is_wrong(returned: Any, said: str, index: int | None) -> None:
    with pytest.raises(WrongReturnError) as caught:
        read_scores(returned, 2)
    assert (caught.value.message, caught.value.index) == (said, index)


ORIGINS = {"origin": ["rows.jsonl:7", "rows.jsonl:9", "rows.jsonl:12"], "answer": ["1", "x", "3"]}

FAILING = [
    # the function raises or returns; what is said after the reward's name
    (
        "def fn(completions, answer):\n    return [int(a) for a in answer]\n",
        "ValueError: invalid literal for int() with base 10: 'x' at rewards.py:2 (completion 1 of this "
        "batch, row rows.jsonl:9); mend it",
    ),
    (
        "import json\ndef read(a):\n    return json.loads(a)\ndef fn(completions, answer): return "
        "[*map(read, answer)]\n",
        "JSONDecodeError: Expecting value: line 1 column 1 (char 0) at rewards.py:3 (completion 1 of "
        "this batch, row rows.jsonl:9); mend it",
    ),
    (
        "def fn(completions):\n    assert len(completions) < 2\n    return [1]\n",
        "AssertionError at rewards.py:2; mend it",
    ),
    (
        "def fn(completions):\n    return [1, float('nan'), 1]\n",
        "it returned nan; None says that a reward does not apply (completion 1 of this batch, row "
        "rows.jsonl:9); see rewards.py:1",
    ),
    (
        "def fn(completions):\n    return [1, 'good', 1]\n",
        'it returned the string "good" and must return a number, None or a dict (completion 1 of this '
        "batch, row rows.jsonl:9); see rewards.py:1",
    ),
    (
        "def fn(completions):\n    return [1]\n",
        "it returned 1 value for 3 completions; see rewards.py:1",
    ),
    (
        "def fn(completions):\n    print('no return')\n",
        "it returned None and must return a list with one value a completion; see rewards.py:1",
    ),
    (
        "def fn(completions):\n    exit(0)\n",
        "SystemExit: 0 at rewards.py:2 (completion 0 of this batch, row rows.jsonl:7); mend it",
    ),
    (
        "import sys\nasync def fn(completions):\n    sys.exit('no key')\n",
        "SystemExit: no key at rewards.py:3; mend it",
    ),
    (
        "class Odd(Exception):\n    def __str__(self): return 1 / 0\ndef fn(completions):\n    raise Odd\n",
        "Odd: its text cannot be made (ZeroDivisionError) at rewards.py:4 (completion 0 of this batch, row "
        "rows.jsonl:7); mend it",
    ),
    (
        "def fn(completions):\n    next(iter([]))\n",
        "StopIteration at rewards.py:2 (completion 0 of this batch, row rows.jsonl:7); mend it",
    ),
    (
        "def fn(completions):\n    yield 1\n",
        "it returned a generator and must return a list with one value a completion; see rewards.py:1",
    ),
    (
        "async def fn(completions):\n    raise TimeoutError('the judge is asleep')\n",
        "TimeoutError: the judge is asleep at rewards.py:2; mend it",
    ),
    (
        "def fn(completions, solution): ...\n",
        "the rows have no solution; name the columns that it needs in the rows",
    ),
    (
        "def fn(completions, environments): ...\n",
        "nobody gives it environments here; give it a default",
    ),
]


@pytest.mark.parametrize(("source", "said"), FAILING)
def test_an_error_names_function_table_completion_row_and_line(folder: Folder, source: str, said: str) -> None:
    reward = folder.one(source)
    with pytest.raises(RewardError) as caught:
        reward.score(["p"] * 3, ["a", "b", "c"], ORIGINS)
    head = "the reward fn failed (./rewards.py:fn, [[train.reward]] number 1): "
    assert str(caught.value) == head + said
    assert caught.value.exit_code == 1


def test_the_log_has_the_users_own_traceback(folder: Folder) -> None:
    reward = folder.one("def deep(): return 1 / 0\ndef fn(completions): return [deep()]\n")
    with pytest.raises(RewardError) as caught:
        reward.score(["p"], ["c"], {})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "at rewards.py:1 (completion 0" in str(caught.value)


def test_a_builtin_names_the_row_whose_column_is_wrong(folder: Folder) -> None:
    (reward,) = folder.load('[[train.reward]]\nuse = "choice"\n')
    with pytest.raises(RewardError, match=r"the right choice is 'maybe', which is not one of A to Z \(completion 1"):
        reward.score(["p"] * 2, ["A", "B"], {"answer": ["A", "maybe"], "origin": ["r:1", "r:2"]})


def test_a_function_gets_what_it_names_and_args_before_columns(folder: Folder) -> None:
    source = "def fn(completions, answer, scale=1): return [len(a) * scale for a in answer]"
    reward = folder.one(source, "{ scale = 3 }")
    columns = {"answer": ["four"], "scale": ["a column"], "other": [1]}
    scores = reward.score(["p"], ["c"], columns, {"trainer_state": None})
    assert scores[0].score == 12.0


def test_a_function_with_keywords_gets_everything(folder: Folder) -> None:
    reward = folder.one("def fn(**all): return [len(all)]")
    assert reward.score(["p"], ["c"], {"answer": [1]}, {"completion_ids": [[1]]})[0].score == 4.0


def test_async_functions_are_awaited_in_one_loop(folder: Folder) -> None:
    reward = folder.one(
        "import asyncio\nloops = set()\nasync def fn(completions):\n    loops.add(asyncio.get_running_loop())\n"
        "    await asyncio.sleep(0)\n    return [len(loops)] * len(completions)\n"
    )
    assert reward.is_async
    assert [reward.score(["p"], ["c"], {})[0].score for _ in range(3)] == [1.0, 1.0, 1.0]
    assert asyncio.run(reward.ascore(["p"], ["c"], {}))[0].score == 2.0


def test_what_a_function_does_to_what_it_gets_stays_with_it(folder: Folder) -> None:
    source = (
        "def fn(prompts, completions, answer):\n    scores = [len(each[0]['content']) for each in completions]\n"
        "    prompts.clear(); answer.clear()\n    for each in completions: each[0]['content'] = ''; each.clear()\n"
        "    completions.clear()\n    return scores\n"
    )
    reward, columns = folder.one(source), {"answer": ["1", "2"]}
    prompts, completions = ["p", "q"], [[{"role": "assistant", "content": text}] for text in ("a", "ab")]
    for _ in range(2):
        assert [each.score for each in reward.score(prompts, completions, columns)] == [1.0, 2.0]


def test_completion_text_reads_both_forms() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    called = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": parts},
    ]
    assert completion_text("plain") == "plain"
    assert completion_text([{"role": "assistant", "content": "said"}]) == "said"
    assert completion_text(called) == "ab"
