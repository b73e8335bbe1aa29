"""What programs may do to others: each way out of the sandbox is really tried, on a process that is there for it.

Each is tried with all that holds a program, and with one wall alone, for no machine is bound to have them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from forge_huggingface.rewards.sandbox import calls, run
from forge_huggingface.rewards.sandbox.run import MIB, Limits
from support.jails import WALLS, break_down
from support.projects import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

LIMITS = Limits(seconds=30, memory=256 * MIB)  # time for a busy machine: other limits end these programs
HEAD = """
import ctypes, fcntl, os, resource, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(*given):
    if libc.syscall(*map(ctypes.c_long, given)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""


@pytest.fixture
def victim() -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    with process.stdin:
        yield psutil.Process(process.pid)
        process.kill()
    process.wait()


@pytest.fixture(params=["all", "seccomp", "namespaces"])
def walls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    alone: str = request.param
    if alone != "all":
        break_down(monkeypatch, tmp_path, *(wall for wall in WALLS if wall != alone))
    if alone == "namespaces" and run.run_script("import os\nprint(os.getpid())", "", LIMITS).output != "2\n":
        pytest.skip("namespaces are not allowed here")
    return alone


def state(process: psutil.Process) -> dict[str, object]:
    """What others may do to a process without ending it."""
    limits = {name: process.rlimit(getattr(psutil, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE")}
    score = Path(f"/proc/{process.pid}/oom_score_adj").read_text()
    scheduled = (process.nice(), process.ionice(), process.cpu_affinity(), os.sched_getscheduler(process.pid))
    undisturbed = process.status() in {psutil.STATUS_RUNNING, psutil.STATUS_SLEEPING, psutil.STATUS_DISK_SLEEP}
    return {"undisturbed": undisturbed, "limits": limits, "score": score, "scheduled": scheduled}


ON_PROCESSES = {
    "a signal": "os.kill(VICTIM, signal.SIGKILL)",
    "a signal to a thread": "call(NR['tgkill'], VICTIM, VICTIM, 9)",
    "a queued signal": "call(NR['rt_sigqueueinfo'], VICTIM, 9, ctypes.addressof(ctypes.create_string_buffer(128)))",
    "a signal by a handle": "signal.pidfd_send_signal(os.pidfd_open(VICTIM), signal.SIGKILL)",
    "a signal for input": """
        r, w = os.pipe()
        fcntl.fcntl(r, fcntl.F_SETSIG if hasattr(fcntl, 'F_SETSIG') else 10, 9)
        fcntl.fcntl(r, fcntl.F_SETOWN, VICTIM)
        fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | fcntl.FASYNC)
        os.write(w, b'x')
    """,
    "a signal for input, by a structure": """
        r, w = os.pipe()
        fcntl.fcntl(r, 10, 9)
        fcntl.fcntl(r, 15, struct.pack('ii', 1, VICTIM))
        fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | fcntl.FASYNC)
        os.write(w, b'x')
    """,
    "a signal for input, of a socket": """
        a, b = socket.socketpair()
        fcntl.ioctl(a, 0x8901, struct.pack('i', VICTIM))
        fcntl.fcntl(a, 10, 9)
        fcntl.ioctl(a, 0x5452, struct.pack('i', 1))
        b.send(b'x')
    """,
    "a signal of a timer": """
        event = (ctypes.c_int * 16)(0, 0, 9, 4, VICTIM)
        made = ctypes.c_int()
        call(NR['timer_create'], 1, ctypes.addressof(event), ctypes.addressof(made))
        call(NR['timer_settime'], made.value, 0, ctypes.addressof((ctypes.c_long * 4)(0, 0, 0, 1000)), 0)
    """,
    "limits of files": "resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (0, 0))",
    "limits of sizes": "resource.prlimit(VICTIM, resource.RLIMIT_FSIZE, (0, 0))",
    "priority": "os.setpriority(os.PRIO_PROCESS, VICTIM, 7)",
    "priority of input and output": "call(NR['ioprio_set'], 1, VICTIM, 3 << 13)",
    "cores": "os.sched_setaffinity(VICTIM, {min(os.sched_getaffinity(0))})",
    "scheduling": "os.sched_setscheduler(VICTIM, os.SCHED_BATCH, os.sched_param(0))",
    "tracing": "call(NR['ptrace'], 0x4206, VICTIM, 0, 0)",
    "writing memory": """
        word = ctypes.create_string_buffer(8)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(word), 8)
        call(NR['process_vm_writev'], VICTIM, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0)
    """,
    "memory as a file": "os.open(f'/proc/{VICTIM}/mem', os.O_RDWR)",
    "its environment": "open(f'/proc/{VICTIM}/environ').read()",
    "its handles": "os.open(f'/proc/{VICTIM}/fd/0', os.O_RDONLY)",
    "moving pages": "call(NR['migrate_pages'], VICTIM, 8, 0, 0)",
    "comparing": "call(NR['kcmp'], VICTIM, os.getpid(), 0, 0, 0)",
}
NUMBERS = {  # x86_64 and aarch64
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "timer_create": (222, 107), "timer_settime": (223, 110),
    "ioprio_set": (251, 30), "ptrace": (101, 117), "process_vm_writev": (311, 271), "migrate_pages": (256, 238),
    "kcmp": (312, 272), "setns": (308, 268),
}  # fmt: skip
BY_FILES = {"memory as a file", "its environment", "its handles"}  # which no filter of system calls sees


def attack(name: str, text: str, victim: psutil.Process | None = None) -> dict[str, object] | None:
    """Run a program, and return what went wrong in it."""
    column = 0 if os.uname().machine == "x86_64" else 1
    numbers = {key: value[column] for key, value in NUMBERS.items()}
    given = f"NR, VICTIM = {numbers!r}, {victim.pid if victim else None}\n"
    outcome, reports = run.run_tests(HEAD + given + textwrap.dedent(text), [], LIMITS)
    assert reports, (name, outcome)
    return reports[0]


@pytest.mark.parametrize("name", ON_PROCESSES)
def test_other_processes_cannot_be_touched(victim: psutil.Process, walls: str, name: str) -> None:
    if walls == "seccomp" and name in BY_FILES:
        pytest.skip("Landlock or namespaces refuse this")
    before = state(victim)
    fault = attack(name, ON_PROCESSES[name], victim)
    assert fault is not None, "it went through"
    assert fault["type"] in {"PermissionError", "ProcessLookupError", "OSError"}, fault
    time.sleep(0.01)  # a signal may take a moment
    assert state(victim) == before


def test_all_processes_of_the_user_cannot_be_touched(victim: psutil.Process, walls: str) -> None:
    before = state(victim)
    for text in ("os.kill(-1, 0)", "os.setpriority(os.PRIO_USER, 0, 9)", "os.setpriority(os.PRIO_PGRP, 0, 9)"):
        fault = attack(text, text)
        # In a namespace of processes all are those inside.
        assert fault is not None or walls == "namespaces", text
    assert state(victim) == before


def test_landlock_alone_keeps_programs_from_other_processes(
    victim: psutil.Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_down(monkeypatch, tmp_path, "seccomp", "namespaces")
    before = state(victim)
    for name in sorted(BY_FILES):
        fault = attack(name, ON_PROCESSES[name], victim)
        assert fault is not None, name
        assert fault["type"] == "PermissionError", name
    assert state(victim) == before


def test_no_memory_of_another_process_can_be_opened_for_writing(walls: str) -> None:
    if walls == "seccomp":
        pytest.skip("Landlock or namespaces refuse this")
    fault = attack(
        "memory",
        """
        got = []
        for number in os.listdir('/proc'):
            if number.isdigit() and number != os.readlink('/proc/self'):
                try: os.close(os.open(f'/proc/{number}/mem', os.O_RDWR))
                except OSError: continue
                got.append(number)
        raise ValueError(got)
    """,
    )
    assert fault is not None
    assert fault["message"] == "[]"


LEFT_BEHIND = {
    "shared memory": "assert libc.shmget(0x666F7267, 4096, 0o1600) >= 0",
    "semaphores": "assert libc.semget(0x666F7267, 1, 0o1600) >= 0",
    "messages": "assert libc.msgget(0x666F7267, 0o1600) >= 0",
    "a queue": "assert libc.mq_open(b'/forge-test', os.O_CREAT | os.O_RDWR, 0o600, None) >= 0",
}


def test_no_memory_is_left_behind(walls: str) -> None:
    def there() -> list[str]:
        return [Path("/proc/sysvipc", name).read_text() for name in ("shm", "sem", "msg")]

    before = there()
    for name, text in LEFT_BEHIND.items():
        fault = attack(name, text)
        assert fault is not None or walls == "namespaces", name
    assert there() == before


@pytest.mark.parametrize(
    "text",
    [
        "os.memfd_create('x')",
        "open('/dev/shm/forge-test', 'w')",
        "fcntl.fcntl(os.pipe()[0], 1031, 2**20)",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '/dev/log')",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].bind('here')",
        "socket.socketpair()[0].bind('here')",
        "socket.socketpair()[0].connect(bytes([0]) + b'name')",
        *(f"socket.socket({family}, {kind})" for family in (1, 2, 10, 16, 17, 38, 40) for kind in (1, 2, 3)),
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.setsid()",
        "os.mknod('device', 0o60600, os.makedev(7, 0))",
        "open('/proc/self/oom_score_adj', 'w').write('1000')",
        "open('/proc/self/mem', 'r+b')",
        "fcntl.flock(os.open('/etc/hostname', os.O_RDONLY), fcntl.LOCK_EX)",
        "os.rename('.', '../elsewhere')",
        "os.rmdir(os.getcwd())",
        "os.chmod('.', 0)",
        "os.nice(-5)",
        "libc.prctl(1, 0, 0, 0, 0) == 0 or call(999999)",
        "call(NR['setns'], os.open('/proc/1/ns/pid', os.O_RDONLY), 0)",
        "os.symlink('/etc/hosts', 'link'); open('link', 'a')",
        "open('here', 'w'); os.link('here', '/tmp/forge-test-link')",
        "os.link('/etc/hostname', 'hard'); open('hard', 'a')",
        "os.sched_setaffinity(1, {0})",
    ],
)
def test_what_programs_have_no_use_for_is_refused(text: str) -> None:
    fault = attack(text, text)
    assert fault is not None, "it went through"
    assert fault["type"] in {"PermissionError", "OSError", "FileNotFoundError"}, fault


def test_no_call_gets_through_that_is_not_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    break_down(monkeypatch, tmp_path, "namespaces", "Landlock")
    column = list(calls._ARCHITECTURES).index(os.uname().machine)
    known = calls._numbers(calls._ALLOWED, column) | calls._numbers(calls._BY_ARGUMENT, column)
    fault = attack(
        "numbers",
        f"""
        got = []
        for number in range(1024):
            if number not in { ({*known.values(), 335, 336})!r}:  # uretprobe and uprobe are past any filter, and kill
                ctypes.set_errno(0)
                if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != (1 if number < 424 else 38):
                    got.append(number)
        raise ValueError(got)
    """,
    )
    assert fault is not None
    assert fault["message"] == "[]"


def test_threads_are_allowed_and_no_processes_of_another_form() -> None:
    number = 56 if os.uname().machine == "x86_64" else 220
    thread = "import threading\nmade = threading.Thread(target=print)\nmade.start()\nmade.join()\n"
    for flags in (17, 0x10000000 | 17, 0x10000000 | 0x3D0F00, 0x20010000):
        fault = attack("clone", f"{thread}call({number}, {flags}, 0, 0, 0, 0)\nos._exit(0)")
        assert fault is not None
        assert fault["type"] == "PermissionError"


def started_in(folder: Path) -> list[psutil.Process]:
    """The processes whose command names a folder."""
    there = psutil.process_iter(["cmdline"])
    return [each for each in there if any(str(folder) in word for word in each.info["cmdline"] or ())]


@pytest.mark.parametrize("walls", ["namespaces"], indirect=True)  # the filter lets it start nothing
def test_what_a_program_starts_ends_with_it(walls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in range(1, 31):
                    if number not in (9, 19):
                        signal.signal(number, signal.SIG_IGN)
                for handle in range(64):
                    try: os.close(handle)
                    except OSError: pass
                import time
                time.sleep(60)
            os._exit(0)
        os.wait()
    """
    assert attack("daemon", text) is None
    wait_for(lambda: not started_in(tmp_path))


def test_a_program_that_would_stay_ends_with_forge(walls: str, tmp_path: Path) -> None:
    program = "import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nopen('begun', 'w').close()\ntime.sleep(60)"
    weak = "" if walls == "all" else f"jail.__file__ = {str(tmp_path / 'weak-jail.py')!r}\n"
    starter = (
        "from forge_huggingface.rewards.sandbox import jail\n"
        "from forge_huggingface.rewards.sandbox.run import Limits, run_script\n"
        f"{weak}run_script({program!r}, '', Limits(seconds=60, memory=2**28))"
    )
    folder = tmp_path / "programs"
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", starter], env={**os.environ, "TMPDIR": str(folder)})
    wait_for(lambda: list(folder.glob("*/program/begun")))
    assert started_in(folder)
    parent.kill()
    parent.wait()
    wait_for(lambda: not started_in(folder))
