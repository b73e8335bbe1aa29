"""The reward ``code-tests``: whether the Python program in a completion passes the row's tests.

The program is the model's, so it runs in :mod:`forge_huggingface.rewards.sandbox`: a process of its own with limits of
time and memory, without network, environment or a place to write to but its own folder. Where the network cannot be
cut off, or other processes can be reached, it does not run unless the job says so.
"""

from __future__ import annotations

import ast
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import NonEmpty, Table, cores
from forge_huggingface.rewards.sandbox.run import MIB, Limits, Outcome, run_script, run_tests
from forge_huggingface.rewards.sandbox.trial import check
from forge_huggingface.rewards.score import Score, WrongReturnError
from forge_huggingface.rewards.text import answer_of, code_block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


LANGUAGES = frozenset({"python", "py", "python3"})

_NO_TESTS = "the row's tests are neither Python, nor a list of such, nor of input and output"

NO_PROGRAM = "No Python program was found. Write the whole program in one ```python block."


class Args(Table):
    """Settings of ``code-tests``."""

    column: NonEmpty = Field(
        "tests",
        description="Column with the tests: Python code, a list of such, or a list of tables with `input` and "
        "`output`; lists may also be strings of JSON.",
    )
    timeout: float = Field(5.0, gt=0, description="Seconds for the program with all its tests; with `input`, for each.")
    memory: int = Field(512, ge=64, description="MiB of memory for each program.")
    partial: bool = Field(False, description="Score the share of tests passed, not only whether all are.")
    show_tests: bool = Field(
        False, description="Let feedback quote the failing test, with what was expected. This gives the answer away."
    )
    allow_network: bool = Field(
        False, description="Let programs use the network, and run them also where they cannot be cut off from it."
    )
    allow_processes: bool = Field(
        False, description="Run programs also where they cannot be kept from your other processes."
    )

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rows must have."""
        return (self.column,)

    @property
    def limits(self) -> Limits:
        """What a program may use."""
        return Limits(seconds=self.timeout, memory=self.memory * MIB, network=self.allow_network)


@dataclass(frozen=True, slots=True)
class Case:
    """Something to give to a program, and what it must print."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one test: passed, or why not; ``why`` does not give the expected result away."""

    passed: bool
    why: str = ""


def prepare(args: Args) -> list[str]:
    """Try the sandbox before anything is trained. Raises :class:`forge.api.UsageError`; returns what to warn of."""
    return [f"code-tests: {note}" for note in check(args.limits, processes=args.allow_processes)]


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    """Score completions by the last Python block in them, or by the whole text if it is a program."""
    tests = []
    for index, given in enumerate(columns[args.column]):
        if (read := _tests(given)) is None:
            raise WrongReturnError(_NO_TESTS, index, "mend the row")
        tests.append(read)
    with ThreadPoolExecutor(cores()) as pool:  # the threads only wait for processes
        return list(pool.map(lambda pair: _score(args, *pair), zip(completions, tests, strict=True)))


def program_of(text: str) -> str | None:
    """Return the program in a completion, or None."""
    block = code_block(text, LANGUAGES)
    if block is not None:
        return block
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return text if re.search(r"[=(:]", text) else None  # a single word is Python too


def _score(args: Args, completion: Any, tests: list[str] | list[Case]) -> Score:
    program = program_of(answer_of(completion))
    if program is None:
        return Score(0.0, NO_PROGRAM, {"passed": 0.0})
    if isinstance(tests[0], Case):
        verdicts = _run_cases(args, program, [case for case in tests if isinstance(case, Case)])
    else:
        verdicts = _run_asserts(args, program, [test for test in tests if isinstance(test, str)])
    share = sum(verdict.passed for verdict in verdicts) / len(tests)
    feedback = None
    for number, verdict in enumerate(verdicts, 1):
        if not verdict.passed:
            feedback = f"Test {number} of {len(tests)} failed: {verdict.why}"
            feedback += _quote(tests[number - 1]) if args.show_tests else ""
            break
    return Score(share if args.partial else float(share == 1), feedback, {"passed": share})


def _run_asserts(args: Args, program: str, tests: list[str]) -> list[Verdict]:
    outcome, reports = run_tests(program, tests, args.limits)
    if not reports:
        return [Verdict(False, _ended(outcome, args))] * len(tests)
    if reports[0] is not None:
        return [Verdict(False, f"the program does not run: {_fault(reports[0])}")] * len(tests)
    verdicts = [Verdict(report is None, "" if report is None else _fault(report)) for report in reports[1:]]
    missing = len(tests) - len(verdicts)
    return verdicts + [Verdict(False, _ended(outcome, args))] * missing


def _run_cases(args: Args, program: str, cases: list[Case]) -> list[Verdict]:
    """Run a program for each case, and no further than it takes to know the score, or one has taken too long."""
    verdicts = []
    for case in cases:
        outcome = run_script(program, case.input, args.limits)
        verdicts.append(_verdict(args, outcome, case))
        if outcome.ended == "time" or not (verdicts[-1].passed or args.partial):
            break
    return verdicts


def _verdict(args: Args, outcome: Outcome, case: Case) -> Verdict:
    if outcome.ended != "done":
        return Verdict(False, _ended(outcome, args))
    if _lines(outcome.output) == _lines(case.output):
        return Verdict(True)
    printed = f". It printed:\n{_short(outcome.output)}" if args.show_tests else ""
    return Verdict(False, f"the output is wrong{printed}")


def _fault(report: Mapping[str, Any]) -> str:
    if report["type"] == "AssertionError":
        return "the result is wrong"  # its message is the test's, and may say what is right
    at = f" (line {report['line']} of the program)" if report["line"] else ""
    return f"{report['type']}: {report['message']}{at}" if report["message"] else f"{report['type']}{at}"


def _ended(outcome: Outcome, args: Args) -> str:
    if outcome.ended == "time":
        return f"it took longer than {args.timeout:g} s"
    if outcome.ended == "output":
        return "it printed too much"
    if outcome.ended == "files":
        return "it wrote too many files, or too much into them"
    last = next((line for line in reversed(outcome.errors.splitlines()) if line.strip()), "")
    line = re.findall(r'File "<program>", line (\d+)', outcome.errors)
    at = f" (line {line[-1]} of the program)" if line else ""
    return f"{last or f'the program ended with code {outcome.code}'}{at}"


def _quote(test: str | Case) -> str:
    if isinstance(test, Case):
        return f"\nInput:\n{_short(test.input)}\nExpected:\n{_short(test.output)}"
    return f"\n{_short(test)}"


def _short(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:500]}…"


def _lines(text: str) -> list[str]:
    """Return the lines of an output without what nobody can see: white space at their ends, empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def row_fault(args: Args, row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row's tests, or None."""
    return _NO_TESTS if _tests(row[args.column]) is None else None


def _tests(given: Any) -> list[str] | list[Case] | None:
    """Read a row's tests, or return None if they are of no form that there is."""
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = [given]
    tests = [given] if isinstance(given, str) else given
    if isinstance(tests, list) and tests and all(isinstance(test, str) for test in tests):
        return list(tests)
    if isinstance(tests, list) and tests and all(isinstance(test, dict) and _is_case(test) for test in tests):
        return [Case(test["input"], test["output"]) for test in tests]
    return None


def _is_case(test: Mapping[str, Any]) -> bool:
    return isinstance(test.get("input"), str) and isinstance(test.get("output"), str)
