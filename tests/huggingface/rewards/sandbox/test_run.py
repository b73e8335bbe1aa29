"""Running programs: their limits and their reports, in real processes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from psutil import NoSuchProcess, Process

from forge_huggingface.rewards.sandbox import run
from forge_huggingface.rewards.sandbox.run import MIB, Limits

LIMITS = Limits(seconds=30, memory=256 * MIB)  # time for a busy machine: other limits end these programs
linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp and Landlock are Linux's")


def fault(program: str, limits: Limits = LIMITS) -> tuple[str, str]:
    """Run a program, and return the type and message of its error."""
    _, reports = run.run_tests(program, [], limits)
    assert reports
    assert reports[0] is not None, "nothing stopped it"
    return reports[0]["type"], reports[0]["message"]


@linux
@pytest.mark.parametrize(
    "program",
    [
        "import socket\nsocket.socket()",
        "import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)",
        "import os, signal\nos.kill(-1, 0)",
        "import os\nos.chmod('.', 0o777)",
    ],
)
def test_calls_that_a_program_has_no_use_for_are_refused(program: str) -> None:
    kind, message = fault(program)
    assert kind in {"PermissionError", "URLError"}
    assert "Operation not permitted" in message


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
    outcome, reports = run.run_tests(program, ["assert found == 3"], LIMITS)
    assert (outcome.ended, reports) == ("done", [None, None])


@linux
def test_memory_ends_where_the_limit_is() -> None:
    assert fault("x = bytearray(10**9)")[0] == "MemoryError"
    kept = run.run_tests("x = []\nwhile True: x.append(bytearray(10**6))", [], LIMITS)
    assert kept[1] == [{"type": "MemoryError", "message": "", "line": 2}]
    assert fault("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))")[0] == "ValueError"
    assert fault("open('big', 'wb').write(bytes(10**8))")[0] == "OSError"


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)", "input()\nwhile True: pass"])
def test_time_ends_where_the_limit_is(program: str) -> None:
    outcome = run.run_script(program, "1\n", Limits(seconds=1, memory=256 * MIB))
    assert outcome.ended == "time"


def test_output_ends_where_the_limit_is() -> None:
    outcome = run.run_script("while True: print('x' * 1000)", "", LIMITS)
    assert outcome.ended == "output"
    assert len(outcome.output) < 2 * run.MAX_OUTPUT


def test_a_crash_is_an_outcome() -> None:
    outcome, reports = run.run_tests("import ctypes\nctypes.string_at(0)", [], LIMITS)
    assert (outcome.ended, reports) == ("crash", [])


def test_no_folder_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        f"import os\nassert os.getcwd().startswith({str(tmp_path)!r})\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()"
    )
    assert run.run_tests(program, [], LIMITS)[1] == [None]
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_open_where_the_job_allows_it() -> None:
    limits = replace(LIMITS, network=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket\nsocket.create_connection({server.getsockname()}).close()"
        assert run.run_tests(program, [], limits)[1] == [None]
        if sys.platform == "linux":
            assert fault(program)[0] == "PermissionError"
    if sys.platform == "linux":  # what listens on this machine is not the network
        assert fault("import socket\nsocket.socket(socket.AF_UNIX)", limits)[0] == "PermissionError"


@pytest.mark.parametrize(
    ("said", "read"),
    [("'{'", 0), ("'[' * 100_000", 0), ("'3'", 0), ("'{\"type\":1}'", 0), ("'9' * 5000", 0), ("'null\\n' * 9", 1)],
)
def test_a_garbled_report_is_no_report(said: str, read: int) -> None:
    program = (
        "import sys, os\nframe = sys._getframe()\nwhile 'secret' not in frame.f_locals: frame = frame.f_back\n"
        f"secret, text = frame.f_locals['secret'], {said}\n"
        "for line in text.split(): frame.f_locals['say'].write(secret + line + '\\n')\n"
        "frame.f_locals['say'].flush()\nos._exit(0)"
    )
    outcome, reports = run.run_tests(program, [], LIMITS)
    assert (outcome.ended, reports) == ("done", [None] * read)


def test_programs_are_compiled_as_they_stand() -> None:
    program = "def f(x: int) -> str: ...\nassert f.__annotations__ == {'x': int, 'return': str}"
    assert (
        run.run_tests(program, ["def g(x: int): ...\nassert g.__annotations__ == {'x': int}"], LIMITS)[1] == [None] * 2
    )
    assert run.run_script(program, "", LIMITS).ended == "done"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_program_that_was_asked_to_end_with_the_rest_of_a_job_is_run_again() -> None:
    """A cluster asks all processes of a job: what the program would have answered is not known then."""
    asked: list[int] = []

    def ask() -> None:
        end = time.monotonic() + 20
        while not asked and time.monotonic() < end:
            for child in Process().children(recursive=True):
                with suppress(NoSuchProcess):
                    if "jail.py" in " ".join(child.cmdline()):
                        asked.append(child.pid)
                        child.send_signal(signal.SIGTERM)
            time.sleep(0.01)

    asking = threading.Thread(target=ask)
    asking.start()
    outcome = run.run_script("import time; time.sleep(1); print('answered')", "", LIMITS)
    asking.join()
    assert asked
    assert (outcome.code, outcome.output.strip()) == (0, "answered")
