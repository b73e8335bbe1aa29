"""Whatever a job file holds, its mistakes are told, each with its line; nothing else is raised."""

from __future__ import annotations

import copy
import json
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w

from forge.discovery.keys import PluginKeys
from forge.errors import JobError, Problem, UsageError
from forge.job.job import Job, dump_job, load_job
from forge.job.read import change_of, parse, read
from forge.job.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.discovery.catalogue import Catalogue

GOOD = """\
[model]
id = "m"
[adapter]
target_modules = ["q_proj"]
rank_pattern = { q_proj = 8 }
[[data.sources]]
path = ["a.jsonl"]
row_template = { prompt = "{q}", completion = "{a}" }
[[data.sources]]
path = "b.jsonl"
roles = { customer = "user" }
[train]
max_steps = 3
lr_scheduler_type = "cosine_with_restarts"
lr_scheduler_kwargs = { num_cycles = 2 }
[eval]
metrics = ["f1"]
[[export]]
format = "merged"
"""
NAMES = [*TABLES, *(name for table in TABLES.values() for name in table.model_fields)]
ODD = [
    "int",
    "str",
    "bool",
    "list[str]",
    "a[b",
    "[key]",
    "dict[str,str]",
    "",
    "a.b",
    "é\u202e",
    "\x1b",
    "0",
    "²",
    "plugins",
]
VALUES: list[Any] = [
    *(0, -1, 2**70, 0.5, float("inf"), float("nan"), True, "", "x", "{a", "lora", "gguf", "x" * 999),
    *([], {}, [{}], [[[]]], [1, "a"], {"int": 1}, {"a[b": {}}, {"": [None]}),
    *(tomli.loads(f"x = {text}")["x"] for text in ("2020-01-01", "10:00:00", "2020-01-01T00:00:00Z")),
]
TEXTS = [
    "\0",
    "[",
    "]",
    "{",
    '"',
    "'",
    "=",
    ".",
    ",",
    "#",
    "\r",
    "\ufeff",
    "\x1b",
    "[[",
    "\\",
    "nan",
    "\n[model]\n",
    "\nx = 1\n",
]


def tables(value: Any) -> list[dict[str, Any]]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(table for item in inside for table in tables(item))]


def changed(rng: random.Random) -> str:
    """Return the good job with keys dropped, renamed and added, and values of other types."""
    raw = tomli.loads(GOOD)
    for _ in range(rng.choice([1, 1, 2, 5])):
        table = rng.choice(tables(raw))
        there = rng.choice([*table, None])
        if there is not None and rng.random() < 0.3:
            table[rng.choice([*NAMES, *ODD])] = table.pop(there)
        elif there is not None and rng.random() < 0.2:
            del table[there]
        else:
            new = there if there is not None and rng.random() < 0.5 else rng.choice([*NAMES, *ODD])
            table[new] = copy.deepcopy(rng.choice(VALUES))
    return tomli_w.dumps(json_free(raw))


def json_free(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: json_free(item) for key, item in value.items() if item is not None}
    return [json_free(item) for item in value if item is not None] if isinstance(value, list) else value


def damaged(rng: random.Random) -> str:
    """Return the good job's text with lines and signs added, doubled and lost."""
    text = GOOD
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(text))
        lines = text.split("\n")
        text = rng.choice(
            [
                text[:at] + rng.choice(TEXTS) + text[at:],
                text[:at] + text[at + 1 :],
                "\n".join([*lines, rng.choice(lines)]),
                text.replace("\n", "\r\n"),
            ]
        )
    return text


def outcome(text: str, keys: PluginKeys, *changes: str) -> Job | UsageError:
    """Return the job of a text, or what is wrong with it; anything else that is raised is a mistake of forge's."""
    try:
        return parse(text, "job.toml", Path("/jobs"), keys, [change_of(change) for change in changes]).job
    except UsageError as error:
        return error


@pytest.mark.parametrize("mutate", [changed, damaged])
def test_a_mutated_job_is_read_or_its_mistakes_are_told_with_their_lines(
    mutate: Callable[[random.Random], str], catalogue: Catalogue
) -> None:
    rng, keys, good = random.Random(13), PluginKeys(catalogue), 0
    for _ in range(700):
        text = mutate(rng)
        found = outcome(text, keys)
        if isinstance(found, JobError):
            assert all(problem.line for problem in found.problems), text
            assert len(set(found.problems)) == len(found.problems) > 0, text
        else:
            assert isinstance(found, Job)
            good += 1
            again = load_job(json.loads(json.dumps(dump_job(found), allow_nan=False)))
            assert again.tables() == found.tables()
    assert good > 20


def test_a_mutated_change_is_read_or_refused(catalogue: Catalogue) -> None:
    rng, keys = random.Random(13), PluginKeys(catalogue)
    for _ in range(500):
        key = ".".join(rng.choice([*NAMES, *ODD, "0", "1", "9"]) for _ in range(rng.choice([1, 2, 2, 3, 4])))
        value = rng.choice(["1", "a", "[", "{}", "[{}]", '"', "1e999", "2020-01-01", "", "\0", "9" * 5000, "[" * 999])
        found = outcome(GOOD, keys, f"{key}={value}")
        if isinstance(found, JobError):
            assert all("(from --set)" in problem.message or problem.line for problem in found.problems)


def problems(catalogue: Catalogue, text: str) -> list[Problem]:
    found = outcome(text, PluginKeys(catalogue))
    assert isinstance(found, JobError)
    return list(found.problems)


@pytest.mark.parametrize(
    ("text", "where", "line", "words"),
    [
        ("[data]\ncolumns = { int = 1 }\n", "data.columns.int", 2, "must be a string, not 1"),
        ("[data]\nrow_template = { str = 1 }\n", "data.row_template.str", 2, "must be a string, not 1"),
        ("[data.roles]\nbool = 'x'\n", "data.roles.bool", 2, 'must be "system"'),
        ("int = 1\n", "int", 1, "unknown key"),
        ("max_rows = 0x" + "f" * 9999 + "\n", "max_rows", 1, "more than 64 bits"),
        ("[data.chat_template_kwargs]\nx = [1, inf]\n", "data.chat_template_kwargs.x.1", 2, "a finite number, not inf"),
        ("[data]\nchat_template_kwargs.a" + ".a" * 99 + " = 1\n", "data", 1, "more than 32 levels deep"),
        ("[train]\nx = 1\ny = " + "9" * 5000 + "\n", "", 3, "not TOML: Exceeds the limit"),
        ("[train]\nx = 1\ny = " + "[" * 5000 + "\n", "", 3, "not TOML: "),
        ("[train]\nx = 1\n\nx = 2\n", "train.x", 4, "it is in line 2 already"),
        ("[train]\nx = { y = 1, y = 2 }\n", "train.x.y", 2, "it is in line 2 already"),
        ("train.x = 1\n[train]\nx = 2\n", "train", 2, "it is in line 1 already"),
        ("[train]\n[data]\n[train]\n", "train", 3, "it is in line 1 already"),
        ("[train]\nx = 1\n[train.x]\n", "train.x", 3, "it is in line 2 already"),
    ],
)
def test_an_odd_key_or_value_is_told_at_its_own_place(
    catalogue: Catalogue, text: str, where: str, line: int, words: str
) -> None:
    found = {problem.where: problem for problem in problems(catalogue, text)}
    assert found[where].line == line
    assert words in found[where].message


def test_what_is_wrong_with_a_key_does_not_hide_what_is_wrong_between_others(catalogue: Catalogue) -> None:
    text = """\
[model]
load_in_4bit = true
load_in_8bit = true
[data]
weight = "a"
[train]
method = "dpo"
learning_rate = "x"
bf16 = true
fp16 = true
"""
    assert [(problem.line, problem.where) for problem in problems(catalogue, text)] == [
        (1, "model.id"),
        (2, "model.load_in_4bit"),
        (4, "data"),
        (5, "data.weight"),
        (8, "train.learning_rate"),
        (9, "train.bf16"),
    ]


def test_a_contradiction_is_not_told_of_a_key_that_was_wrong_itself(catalogue: Catalogue) -> None:
    assert [problem.where for problem in problems(catalogue, '[model]\nid = "m"\n[data]\npath = 1\n')] == ["data.path"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, catalogue: Catalogue) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    for name in ("pipe.toml", "loop.toml", "pipe.toml/x", "x" * 300):
        with pytest.raises(UsageError, match=r"no file|cannot be read"):
            read(tmp_path / name, PluginKeys(catalogue))


@pytest.mark.parametrize(
    "line",
    [
        'path = "https://me:WORD@host/rows.jsonl"',
        'path = ["a.jsonl", "https://b.s3.amazonaws.com/rows.jsonl?X-Amz-Signature=WORD"]',
        'path = "d"\nrevision = "hf_WORDWORDWORDWORDWORDWORDWORDWORD"',
        'path = "d"\nchat_template_kwargs = { url = "http://WORD@host" }',
    ],
)
def test_a_login_in_a_job_is_refused_and_not_shown(catalogue: Catalogue, line: str) -> None:
    (problem,) = problems(catalogue, f'[model]\nid = "m"\n[data]\n{line}\n')
    assert problem.message.startswith("holds a login")
    assert "WORD" not in str(JobError("job.toml", [problem]))


def test_a_text_may_hold_an_address_and_a_comment_is_copied_without_its_login(catalogue: Catalogue) -> None:
    text = '[model]\nid = "m"  # was https://me:WORD@host/m\n[data]\npath = "d"\n'
    assert "WORD" not in parse(text, "job.toml", Path("/jobs"), PluginKeys(catalogue)).text
    prompt = 'system_prompt = "Write https://name:word@host as an example."\n'
    file = parse(text + prompt, "job.toml", Path("/jobs"), PluginKeys(catalogue))
    assert file.job.data.system_prompt == "Write https://name:word@host as an example."
    assert file.text == text + prompt
