"""Every way to name a reward function wrongly is told by the plan: without importing it, and with the line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from forge.machine.presets import PRESETS
from forge_huggingface.rewards.rules import cannot_reward

if TYPE_CHECKING:
    from support.rewarding import Folder

SOURCE = """\
raise RuntimeError("a plan must not run this")

def close(*, prompts, completions, answer, tolerance=0.1): ...
def bare(prompts, completions, **columns): ...
async def judge(completions, **columns): ...
def singular(prompt, completion): ...
def lone(completions, /): ...
def _hidden(completions): ...
@decorated
def wrapped(*args): ...
class Judge: ...
alias = close
"""

WRONG = {
    # use and args of one table: the line inside the tables, the key, what is said
    'use = "math-equals"': (2, "use", 'there is no built-in reward "math-equals"; did you mean "math-equal"?'),
    'use = "math_equal"': (2, "use", 'there is no built-in reward "math_equal"; did you mean "math-equal"?'),
    'use = "accuracy"': (
        2,
        "use",
        'there is no built-in reward "accuracy"; there are: choice, code-tests, json-schema, length, '
        'math-equal, regex; a function of yours is "./rewards.py:function"',
    ),
    'use = "./reward.py:close"': (2, "use", "there is no file {}/reward.py; did you mean rewards.py?"),
    'use = "./other/rewards.py:close"': (
        2,
        "use",
        "there is no file {}/other/rewards.py; relative paths start at the folder of the job",
    ),
    'use = "./broken.py:fn"': (2, "use", "./broken.py is not Python: line 2: '(' was never closed"),
    'use = "./rewards.py"': (2, "use", 'names no function of ./rewards.py; write "./rewards.py:close"'),
    'use = "./rewards.py:clos"': (2, "use", "./rewards.py has no function clos; did you mean close?"),
    'use = "./rewards.py:accuracy"': (
        2,
        "use",
        "./rewards.py has no function accuracy; it has close, bare, judge, singular, lone",
    ),
    'use = "./rewards.py:Judge"': (2, "use", "Judge is a class; name a function, or an instance that can be called"),
    'use = "./rewards.py:singular"': (2, "use", "singular takes no completions; rename completion to completions"),
    'use = "./rewards.py:lone"': (
        2,
        "use",
        "lone takes completions by position only; remove the / from its parameters",
    ),
    'use = "./rewards.py:close"\nargs = { tolerence = 0.2 }': (
        3,
        "args.tolerence",
        "close has no parameter tolerence; did you mean tolerance?",
    ),
    'use = "./rewards.py:bare"\nargs = { completions = 1 }': (
        2,
        "use",
        "bare gets completions from the trainer; remove it from args",
    ),
    'use = "nowhere.rewards:fn"': (
        2,
        "use",
        'there is no module nowhere; install it; a file beside the job is "./file.py:function"',
    ),
    'use = "broken:close"': (
        2,
        "use",
        'there is no module broken; for the file beside the job write "./broken.py:close"',
    ),
    'use = "json.tool:mian"': (2, "use", "json.tool has no function mian; did you mean main?"),
    'use = "json.tool"': (2, "use", 'names no function of json.tool; write "json.tool:main"'),
    'use = "json.tool:main"': (
        2,
        "use",
        "main takes no completions; write it as def f(*, prompts, completions, **columns)",
    ),
    'use = "length"\nweight = 0': (
        3,
        "weight",
        "its weight is 0, so nothing would be learned; give one of them a weight",
    ),
    'use = "math-equal"\nargs = { colum = "x" }': (3, "args.colum", "unknown key; did you mean column?"),
    'use = "choice"\nargs = { column = 3 }': (3, "args.column", "must be a string, not 3"),
    'use = "code-tests"\n[train.reward.args]\ntimeout = 0': (4, "args.timeout", "must be above 0.0, not 0"),
    'use = "code-tests"\n[train.reward.args]\nallow_network = "yes"': (
        4,
        "args.allow_network",
        'must be true or false, not the string "yes"',
    ),
    'use = "regex"': (1, "args.pattern", "is missing"),
    'use = "regex"\nargs = { pattern = "(" }': (
        3,
        "args.pattern",
        "pattern is no regular expression: missing ), unterminated subpattern at position 0",
    ),
    'use = "regex"\nargs = { pattern = "(a)", group = 2, column = "c" }': (
        3,
        "args.group",
        "group 2 is not in the pattern, which has 1",
    ),
    'use = "regex"\nargs = { pattern = "(a)", group = 1 }': (
        3,
        "args.group",
        "group is compared with a column; name one",
    ),
    'use = "length"': (1, "args", "there is no length to keep to; write min, max or both"),
    'use = "length"\nargs = { min = 9, max = 3 }': (3, "args.min", "min (9) is above max (3)"),
    'use = "json-schema"\nargs = { schema = { type = "strng" } }': (
        3,
        "args.schema",
        "schema is no JSON Schema: 'strng' is not valid under any of the given schemas (at type)",
    ),
    'use = "json-schema"\nargs = { schema = {}, column = "s" }': (
        3,
        "args.schema",
        "schema and column are two ways to say the same; keep one",
    ),
}


@pytest.mark.parametrize("table", WRONG)
def test_what_is_wrong_is_told_with_its_line(folder: Folder, table: str) -> None:
    line, key, said = WRONG[table]
    folder.file(SOURCE)
    folder.file("def fn(completions):\n    return (\n", "broken.py")
    problems = folder.problems(f"[[train.reward]]\n{table}\n")
    found = [problem for problem in problems if problem.where != "train.reward.0.weight" or "weight" in table]
    first = next(problem for problem in found if problem.where == f"train.reward.0.{key}")
    words = f"{first.message}; {first.do}" if first.do else first.message
    assert words == said.replace("{}", str(folder.path))
    assert first.line == line
    if "weight" not in table:
        assert len(found) == 1


@pytest.mark.parametrize(
    "table",
    [
        'use = "./rewards.py:close"\nargs = { tolerance = 0.2, answer = "42" }',
        'use = "./rewards.py:bare"\nargs = { whatever = 1 }',
        'use = "./rewards.py:judge"',
        'use = "./rewards.py:wrapped"',
        'use = "./rewards.py:alias"',
        'use = "rewards.py:close"',
        'use = "forge_huggingface.rewards.text:answer_of"\nname = "odd"',
        'use = "math-equal"\nargs = { column = "solution" }',
    ],
)
def test_what_is_right_or_cannot_be_seen_from_here_passes(folder: Folder, table: str) -> None:
    folder.file(SOURCE)
    problems = folder.problems(f"[[train.reward]]\n{table}\n")
    assert [problem for problem in problems if "answer_of" not in problem.message] == []


def test_a_job_without_rewards_is_told(folder: Folder) -> None:
    (problem,) = folder.problems("")
    assert problem.message == 'method = "grpo" learns from rewards, and there is none'
    assert problem.where == "train.reward"


def test_all_mistakes_of_all_tables_are_told_at_once(folder: Folder) -> None:
    text = """\
[[train.reward]]
use = "math-equal"
name = "same"
weight = 0.0

[[train.reward]]
use = "lenght"
name = "same"
weight = 0
"""
    found = {problem.where: (problem.line, problem.message) for problem in folder.problems(text)}
    assert found == {
        "train.reward.0.weight": (4, "all weights are 0, so nothing would be learned"),
        "train.reward.1.use": (7, 'there is no built-in reward "lenght"'),
        "train.reward.1.name": (8, "same is also the name of number 1"),
    }


def test_a_missing_package_is_a_reason_with_the_line_that_installs_it(folder: Folder) -> None:
    job, machine = folder.job('[[train.reward]]\nuse = "math-equal"\n'), PRESETS["linux-cpu"]
    without = replace(machine, versions={})
    assert cannot_reward(without, job, None) == (  # type: ignore[arg-type]  # facts do not matter
        '[[train.reward]] math-equal needs math-verify, which is not installed (pip install "math-verify[antlr4-13-2]")'
    )
    old = replace(machine, versions={"math-verify": "0.5.0"})
    assert "needs math-verify>=0.9, and 0.5.0 is installed" in str(cannot_reward(old, job, None))  # type: ignore[arg-type]  # facts do not matter
    right = replace(machine, versions={"math-verify": "0.9.0"})
    assert cannot_reward(right, job, None) is None  # type: ignore[arg-type]  # facts do not matter


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_code_tests_are_refused_where_nothing_can_hold_programs(folder: Folder, platform: str) -> None:
    machine = replace(PRESETS["linux-cpu"], platform=platform)
    job = folder.job('[[train.reward]]\nuse = "code-tests"\n')
    said = str(cannot_reward(machine, job, None))  # type: ignore[arg-type]  # facts do not matter
    assert f"on {platform} forge cannot cut it off from the network, keep it from your other processes or" in said
    assert "args = { allow_network = true, allow_processes = true }" in said
    half = folder.job('[[train.reward]]\nuse = "code-tests"\nargs = { allow_network = true }\n')
    assert cannot_reward(machine, half, None) == said  # type: ignore[arg-type]  # facts do not matter
    both = "allow_network = true, allow_processes = true"
    allowed = folder.job(f'[[train.reward]]\nuse = "code-tests"\nargs = {{ {both} }}\n')
    assert cannot_reward(machine, allowed, None) is None  # type: ignore[arg-type]  # facts do not matter


def test_importing_the_rules_imports_nothing_heavy() -> None:
    heavy = "{'pydantic', 'asyncio', 'jsonschema', 'math_verify', 'torch'}"
    code = f"import sys, forge_huggingface.rewards.rules; print(sorted({heavy} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
