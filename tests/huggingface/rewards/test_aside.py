"""Work that is done aside: it ends when its time is over, and the next is done all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from forge_huggingface.rewards import aside
from forge_huggingface.rewards.aside import TooLongError, WorkError, ask
from support.projects import wait_for


def test_work_is_done_and_its_result_comes_back() -> None:
    assert ask("math:hypot", 5, 3, 4) == 5
    assert ask("builtins:sorted", 5, ["b", "\ud800", "a\nb"]) == ["a\nb", "b", "\ud800"]


def test_what_goes_wrong_is_told() -> None:
    with pytest.raises(WorkError, match="ZeroDivisionError: division by zero"):
        ask("operator:truediv", 5, 1, 0)


@pytest.mark.parametrize(
    ("work", "given"), [("time:sleep", (60,)), ("re:search", ("^(a+)+$", "a" * 40 + "!")), ("os:_exit", (0,))]
)
def test_work_that_does_not_end_is_given_up_and_the_next_is_done(work: str, given: tuple[object, ...]) -> None:
    with pytest.raises(TooLongError):
        ask(work, 0.3, *given)
    assert ask("math:hypot", 5, 3, 4) == 5


def test_several_threads_can_ask() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: ask("builtins:abs", 5, -number), range(200))) == list(range(200))


def test_one_that_was_ended_meanwhile_is_started_anew() -> None:
    psutil.Process(ask("os:getpid", 5)).kill()
    wait_for(lambda: aside._HELPER._process is None or aside._HELPER._process.poll() is not None)
    assert ask("math:hypot", 5, 3, 4) == 5


def test_what_work_prints_is_no_answer() -> None:
    assert ask("builtins:print", 5, "[3, null]") is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_work_that_takes_too_much_memory_is_an_error() -> None:
    with pytest.raises(WorkError, match="MemoryError"):
        ask("builtins:bytearray", 30, 2**40)


def test_it_ends_with_the_process_that_asks_and_when_that_is_killed() -> None:
    code = "from forge_huggingface.rewards.aside import ask; print(ask('os:getpid', 5), flush=True); "
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wait_for(lambda: not psutil.pid_exists(int(ended.stdout)))
    command = [sys.executable, "-c", f"{code} ask('time:sleep', 1, 60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        helper = int(process.stdout.readline())
        process.kill()
    wait_for(lambda: not psutil.pid_exists(helper) or os.name == "nt")
