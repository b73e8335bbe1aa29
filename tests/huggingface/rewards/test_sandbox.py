"""``code-tests`` and its sandbox: what programs may not do is really tried, in real processes on this machine."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from forge.api import UsageError
from forge_huggingface.rewards.builtin import code_tests, jail, sandbox
from forge_huggingface.rewards.builtin.code_tests import NO_PROGRAM, program_of
from forge_huggingface.rewards.builtin.sandbox import MIB, Limits
from forge_huggingface.rewards.reward import RewardError
from support.projects import wait_for

LIMITS = Limits(seconds=30, memory=256 * MIB)  # time for a busy machine: other limits end these programs
linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp and Landlock are Linux's")


def code(text: str) -> str:
    return f"Here it is:\n\n```python\n{text}\n```\nThat does it."


def fault(program: str, limits: Limits = LIMITS) -> tuple[str, str]:
    """Run a program, and return the type and message of its error."""
    _, reports = sandbox.run_tests(program, [], limits)
    assert reports
    assert reports[0] is not None, "nothing stopped it"
    return reports[0]["type"], reports[0]["message"]


@linux
def test_this_machine_can_hold_programs() -> None:
    assert [note for note in sandbox.check(LIMITS) if "Landlock" not in note] == []


@linux
@pytest.mark.parametrize(
    "program",
    [
        "import socket\nsocket.socket()",
        "import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "import os\nos.fork()",
        "import os\nwhile True: os.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)",
        "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "import os\nos.chmod('.', 0o777)",
    ],
)
def test_calls_that_a_program_has_no_use_for_are_refused(program: str) -> None:
    kind, message = fault(program)
    assert kind in {"PermissionError", "URLError"}
    assert "Operation not permitted" in message


@linux
def test_no_privileged_call_slips_through_by_number() -> None:
    _, numbers = jail._SYSCALLS[os.uname().machine]
    numbers = numbers | jail._SHARED
    names = ("socket", "unshare", "mount", "ptrace", "bpf", "io_uring_setup", "clone3")
    asked = {name: numbers[name] for name in names}
    program = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
got = {{}}
for name, number in {asked!r}.items():
    got[name] = (libc.syscall(number, 2, 1, 0, 0, 0, 0), ctypes.get_errno())
raise ValueError(got)
"""
    _, message = fault(program)
    wanted = {name: (-1, 38 if name == "clone3" else 1) for name in asked}
    assert message == str(wanted)


@linux
def test_files_outside_the_folder_cannot_be_written_removed_or_renamed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for program in (
        f"open({str(kept)!r}, 'w').write('yours')",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.rename({str(kept)!r}, 'taken')",
        f"import os; os.mkdir({str(tmp_path / 'new')!r})",
        f"import os; os.symlink({str(kept)!r}, {str(tmp_path / 'link')!r})",
        "import os; open('inside', 'w').close(); os.link('inside', '/tmp/forge-link')",
    ):
        kind, _ = fault(program)
        assert kind in {"PermissionError", "OSError"}, program  # a link into another folder is refused as EXDEV
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept", "mine")]


@linux
def test_other_processes_cannot_be_looked_into() -> None:
    kind, _ = fault(f"open('/proc/{os.getpid()}/environ').read()")
    assert kind == "PermissionError"


def test_the_environment_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    _, message = fault("import os\nraise ValueError(sorted(os.environ))")
    assert "HF_TOKEN" not in message
    assert "HOME" in message


def test_a_program_may_use_its_folder_threads_and_installed_modules() -> None:
    program = (
        "import tempfile, threading, json, numpy\n"
        "with tempfile.TemporaryFile('w') as f: f.write('x')\n"
        "open('here', 'w').write('x')\n"
        "t = threading.Thread(target=print); t.start(); t.join()\n"
        "found = float(numpy.ones(3).sum())\n"
    )
    outcome, reports = sandbox.run_tests(program, ["assert found == 3"], LIMITS)
    assert (outcome.ended, reports) == ("done", [None, None])


@linux
def test_memory_ends_where_the_limit_is() -> None:
    assert fault("x = bytearray(10**9)")[0] == "MemoryError"
    kept = sandbox.run_tests("x = []\nwhile True: x.append(bytearray(10**6))", [], LIMITS)
    assert kept[1] == [{"type": "MemoryError", "message": "", "line": 2}]
    assert fault("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))")[0] == "ValueError"
    assert fault("open('big', 'wb').write(bytes(10**8))")[0] == "OSError"


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)", "input()\nwhile True: pass"])
def test_time_ends_where_the_limit_is(program: str) -> None:
    outcome = sandbox.run_script(program, "1\n", Limits(seconds=1, memory=256 * MIB))
    assert outcome.ended == "time"


def test_output_ends_where_the_limit_is() -> None:
    outcome = sandbox.run_script("while True: print('x' * 1000)", "", LIMITS)
    assert outcome.ended == "output"
    assert len(outcome.output) < 2 * sandbox.MAX_OUTPUT


def test_a_crash_is_an_outcome() -> None:
    outcome, reports = sandbox.run_tests("import ctypes\nctypes.string_at(0)", [], LIMITS)
    assert (outcome.ended, reports) == ("crash", [])


@linux
def test_a_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    started = (
        "from forge_huggingface.rewards.builtin.sandbox import Limits, run_script\n"
        "run_script('import time\\ntime.sleep(60)', '', Limits(seconds=60, memory=2**28))"
    )
    parent = psutil.Popen([sys.executable, "-c", started], env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_for(lambda: parent.children())
    (child,) = parent.children()
    time.sleep(0.5)  # until it has begun
    assert child.is_running()
    parent.kill()
    parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_no_folder_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        f"import os\nassert os.getcwd().startswith({str(tmp_path)!r})\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()"
    )
    assert sandbox.run_tests(program, [], LIMITS)[1] == [None]
    assert list(tmp_path.iterdir()) == []


@linux
def test_where_the_network_stays_open_programs_are_refused_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(jail.__file__).read_text(encoding="utf-8")
    lame = tmp_path / "jail.py"  # as on an architecture whose calls nobody has listed, with an old kernel
    lame.write_text(text.replace("if platform.machine() not in _SYSCALLS:", "if True:").replace("version < 1", "True"))
    monkeypatch.setattr(jail, "__file__", str(lame))
    with pytest.raises(UsageError) as caught:
        sandbox.check(LIMITS)
    assert str(caught.value) == (
        "what the model writes cannot be cut off from the network here: it could open sockets (ipv4, ipv6, unix): "
        "this needs Linux on x86_64 or aarch64 with seccomp; run it where that is, or accept it with "
        "args = { allow_network = true }"
    )
    files, calls = sandbox.check(replace(LIMITS, network=True))
    assert files.startswith("files outside its folder cannot be protected here")
    assert calls.startswith("it may start further processes")


def test_the_network_is_open_where_the_job_allows_it() -> None:
    limits = replace(LIMITS, network=True)
    _, reports = sandbox.run_tests("import socket\nsocket.socket()", [], limits)
    assert reports == [None]


def test_too_little_memory_to_start_is_told_before_training() -> None:
    with pytest.raises(UsageError, match="programs cannot be run here"):
        sandbox.check(replace(LIMITS, memory=8 * MIB))


# The reward

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


def test_a_garbled_report_is_no_report() -> None:
    program = "import json\njson.JSONEncoder.encode = lambda *a: '{'\nraise ValueError"
    outcome, reports = sandbox.run_tests(program, ["pass"], LIMITS)
    assert (outcome.ended, reports) == ("done", [])


def test_programs_are_compiled_as_they_stand() -> None:
    program = "def f(x: int) -> str: ...\nassert f.__annotations__ == {'x': int, 'return': str}"
    assert (
        sandbox.run_tests(program, ["def g(x: int): ...\nassert g.__annotations__ == {'x': int}"], LIMITS)[1]
        == [None] * 2
    )
    assert sandbox.run_script(program, "", LIMITS).ended == "done"


def test_one_case_that_takes_too_long_ends_the_row(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def counted(program: str, text: str, limits: Limits) -> sandbox.Outcome:
        given.append(text)
        return sandbox.run_script(program, text, limits)

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
