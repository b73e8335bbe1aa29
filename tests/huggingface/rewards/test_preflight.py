"""Before a model is loaded, rows are known to have what rewards need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import UsageError
from forge_huggingface.rewards.preflight import findings, lacking
from forge_huggingface.rows import set_apart

if TYPE_CHECKING:
    from support.rewarding import Folder

USE = '[[train.reward]]\nuse = "./rewards.py:fn"\n[[train.reward]]\nuse = "math-equal"\n'
ROWS = [
    {"prompt": "1+1", "answer": "2", "unit": "", "origin": "rows.jsonl:1"},
    {"prompt": "1+2", "answers": "3", "unit": "", "origin": "rows.jsonl:2"},
    {"prompt": "1+3", "answers": "4", "origin": "rows.jsonl:3"},
    {"prompt": "1+4", "origin": "rows.jsonl:4"},
]


def test_the_first_row_that_lacks_a_column_is_named_for_each_reward(folder: Folder) -> None:
    folder.file("def fn(completions, unit): ...\n")
    rewards = folder.load(USE)
    assert list(lacking(rewards, ROWS[:1])) == []
    assert [finding.message for finding in lacking(rewards, ROWS)] == [
        "rows.jsonl:2 has no column answer, which the reward math-equal needs ([[train.reward]] number 2); "
        "did you mean answers?",
        "rows.jsonl:3 has no column unit, which the reward fn needs ([[train.reward]] number 1); there are answers",
    ]
    (bare, _) = lacking(rewards, ROWS[3:])
    assert bare.message.endswith("there is none but the prompt")
    assert (bare.severity, bare.do) == ("error", "rename it with [data] columns, or name it in the reward's args")


def test_a_row_that_a_builtin_cannot_use_is_named_before_training(folder: Folder) -> None:
    table = '[[train.reward]]\nuse = "{}"\nargs = {{ column = "{}" }}\n'
    names = {"choice": "right", "code-tests": "tests", "json-schema": "schema"}
    rewards = folder.load("".join(table.format(use, column) for use, column in names.items()))
    good = {"prompt": "p", "right": "B", "tests": "assert f()", "schema": '{"type": "object"}'}
    bad = {"right": "maybe", "tests": "[3]", "schema": "3"}
    rows = [{**good, **part, "origin": f"d:{line}"} for line, part in enumerate([{}, bad, bad], 1)]
    assert list(lacking(rewards, rows[:1])) == []
    assert [(finding.severity, finding.message) for finding in lacking(rewards, rows)] == [
        ("error", "d:2: the right choice is 'maybe', which is not one of A to Z (choice, [[train.reward]] number 1)"),
        (
            "error",
            "d:2: the row's tests are neither Python, nor a list of such, nor of input and output "
            "(code-tests, [[train.reward]] number 2)",
        ),
        (
            "error",
            "d:2: the row's schema is no JSON Schema: it is neither a table nor true or false "
            "(json-schema, [[train.reward]] number 3)",
        ),
    ]


def test_of_streamed_rows_only_the_first_are_looked_at(folder: Folder) -> None:
    folder.file("def fn(completions, unit): ...\n")
    rewards, read = folder.load(USE), []

    def stream() -> Any:
        for index in range(1000):
            read.append(index)
            yield ROWS[0]

    assert list(lacking(rewards, stream())) == []
    assert len(read) == 8


def test_a_reward_that_cannot_be_had_stops_the_run(folder: Folder) -> None:
    folder.file("import nothing_of_this_name\ndef fn(completions): ...\n")
    with pytest.raises(UsageError, match="importing it failed"):
        list(findings(folder.job(USE), None, None))  # type: ignore[arg-type]  # neither is looked at first


def test_a_column_that_no_reward_can_see_is_told_once(folder: Folder) -> None:
    folder.file("def fn(completions, completion, image): ...\n")
    rewards = folder.load('[[train.reward]]\nuse = "./rewards.py:fn"\n')
    rows = [set_apart({"prompt": "p", "completion": "c", "image": None, "completions": "x"})] * 2
    (found,) = lacking(rewards, rows)
    assert found.severity == "warning"
    assert found.message == "no reward sees the column completions: the trainer gives rewards something of that name"
