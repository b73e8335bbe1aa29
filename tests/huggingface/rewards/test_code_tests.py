"""The reward ``code-tests``: which program it takes from a completion, and what it says of the tests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge_huggingface.rewards.builtin import code_tests
from forge_huggingface.rewards.builtin.code_tests import NO_PROGRAM, program_of
from forge_huggingface.rewards.reward import RewardError
from forge_huggingface.rewards.sandbox import run
from forge_huggingface.rewards.sandbox.run import Limits


def code(text: str) -> str:
    return f"Here it is:\n\n```python\n{text}\n```\nThat does it."


ADD = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    ("completion", "score", "feedback"),
    [
        (code(ADD), 1.0, None),
        (ADD, 1.0, None),
        (f"<think>```python\nnonsense\n```</think>{code(ADD)}", 1.0, None),
        (code("def add(a, b):\n    return a - b"), 0.0, "Test 2 of 3 failed: the result is wrong"),
        (
            code("def add(a, b):\n    return a + c"),
            0.0,
            "Test 1 of 3 failed: NameError: name 'c' is not defined (line 2 of the program)",
        ),
        (code("def plus(a, b):\n    return a + b"), 0.0, "Test 1 of 3 failed: NameError: name 'add' is not defined"),
        (
            code("def add(a, b)\n    return a + b"),
            0.0,
            "Test 1 of 3 failed: the program does not run: SyntaxError: expected ':' (line 1 of the program)",
        ),
        (code("def add(a, b):\n    while True: pass"), 0.0, "Test 1 of 3 failed: it took longer than 1 s"),
        (code(f"{ADD}\nimport os\nos._exit(0)"), 0.0, "Test 1 of 3 failed: the program ended with code 0"),
        (
            code(f"{ADD}\nraise SystemExit(0)"),
            0.0,
            "Test 1 of 3 failed: the program does not run: SystemExit: 0 (line 3 of the program)",
        ),
        (code("print('{\"type\": null}')\ndef add(a, b): return a"), 0.0, "Test 2 of 3 failed: the result is wrong"),
        ("I would add both numbers.", 0.0, NO_PROGRAM),
        ("four", 0.0, NO_PROGRAM),
        ("```java\nint add;\n```", 0.0, NO_PROGRAM),
    ],
)
def test_code_tests_run_the_program_with_its_tests(
    make: Any, completion: str, score: float, feedback: str | None
) -> None:
    tests = ["assert add(0, 0) == 0", "assert add(2, 3) == 5, 'five'", "assert add(-1, 1) == 0"]
    timeout = 1 if "while True" in completion else 30
    (found,) = make("code-tests", timeout=timeout)([completion], tests=[tests])
    assert (found.score, found.feedback) == (score, feedback)


def test_code_tests_can_score_the_share_and_quote_the_test(make: Any) -> None:
    tests = ["assert f(1) == 1", "assert f(2) == 4, 'four'", "assert f(3) == 9", "assert f(0) == 0"]
    (found,) = make("code-tests", partial=True, show_tests=True)([code("def f(x): return x")], tests=[tests])
    assert found.score == 0.5
    assert found.feedback == "Test 2 of 4 failed: the result is wrong\nassert f(2) == 4, 'four'"
    slow = code("def f(x):\n    while x == 3: pass\n    return x * x")
    (found,) = make("code-tests", partial=True, timeout=3)([slow], tests=[tests])
    assert found.score == 0.5  # what passed before the time was over counts


@pytest.mark.parametrize("value", ["None", "'null'", "'{'"])
def test_a_program_that_replaces_what_runs_its_tests_has_not_passed(make: Any, value: str) -> None:
    program = (
        "import builtins, json\n"
        f"builtins.exec = builtins.compile = json.dumps = lambda *a, **k: {value}\n"
        "def f(): return 1"
    )
    (found,) = make("code-tests")([code(program)], tests=["assert f() == 2"])
    assert found.score == 0.0


def test_one_case_that_takes_too_long_ends_the_row(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def counted(program: str, text: str, limits: Limits) -> run.Outcome:
        given.append(text)
        return run.run_script(program, text, limits)

    monkeypatch.setattr(code_tests, "run_script", counted)
    cases = [{"input": str(n), "output": str(n)} for n in range(9)]
    program = "n = int(input())\nwhile n: pass\nprint(n)"
    (found,) = make("code-tests", partial=True, timeout=3)([code(program)], tests=[cases])
    assert found.score == pytest.approx(1 / 9)
    assert given == ["0", "1"]


def test_code_tests_of_one_string_are_one_test(make: Any) -> None:
    checks = "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(1, 1) == 2\ncheck(add)\n"
    scores = make("code-tests")([code(ADD), code("def add(a, b): return 5")], tests=[checks, checks])
    assert [score.score for score in scores] == [1.0, 0.0]


def test_code_tests_compare_what_a_program_prints(make: Any) -> None:
    cases = [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2\n", "output": "4"}]
    good, bad = "a, b = map(int, input().split())\nprint(a + b)", "print(3)"
    for given in (cases, json.dumps(cases)):
        scores = make("code-tests", partial=True)([code(good), code(bad)], tests=[given, given])
        assert [score.score for score in scores] == [1.0, 0.5]
    (found,) = make("code-tests", show_tests=True)([code(bad)], tests=[cases])
    assert found.feedback == "Test 2 of 2 failed: the output is wrong. It printed:\n3\n\nInput:\n2 2\n\nExpected:\n4"
    (found,) = make("code-tests")([code("print(1 / 0)")], tests=[cases])
    assert found.feedback == "Test 1 of 2 failed: ZeroDivisionError: division by zero (line 1 of the program)"


@pytest.mark.parametrize("tests", [[], [3], None, [{"input": "1"}], ["assert True", {"input": "", "output": ""}]])
def test_tests_of_another_form_are_an_error_with_the_row(make: Any, tests: Any) -> None:
    with pytest.raises(RewardError, match=r"neither Python, nor a list .* \(completion 0 of this batch, row d:4\)"):
        make("code-tests")([code(ADD)], tests=[tests], origin=["d:4"])


def test_the_last_block_is_the_program() -> None:
    assert program_of("```python\nx = 1\n```\nBetter:\n```py\nx = 2\n```\n") == "x = 2\n"
    assert program_of("```text\nx = 1\n```") is None
