"""The process in which a model's program runs: ``python -I jail.py SPEC``, started by :mod:`.sandbox`.

It reads what to run, takes from itself what the program shall not have, and only then runs it. So there is one start
of an interpreter for each program, and nothing runs between fork and exec in a process that may have threads.

On Linux three things hold it, none of which needs a privilege, so that they also work inside containers:

- resource limits for memory, processor time and the size of files;
- a seccomp filter (https://docs.kernel.org/userspace-api/seccomp_filter.html) that refuses sockets, new processes,
  signals, tracing and changes of modes and owners. Threads are allowed;
- Landlock (https://docs.kernel.org/userspace-api/landlock.html), from Linux 5.13 on, which refuses to write outside the
  folder and to look into other processes.

What it reports goes to the standard output as lines of JSON behind a word that only forge knows, so that a program that
ends early, or prints what looks like a report, has not passed its tests. It is no fence against a program that
searches the memory it runs in; nothing that shares a process with its judge is.
"""

# It runs under -I, without forge's folders on the path: standard library only.
from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType


PROGRAM = "<program>"
_MAX_TEXT = 400

_NAMES = (
    "socket", "execve", "execveat", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "pidfd_send_signal", "pidfd_getfd", "ptrace", "process_vm_readv", "process_vm_writev", "io_uring_setup", "bpf",
    "perf_event_open", "unshare", "setns", "mount", "umount2", "chroot", "add_key", "request_key", "keyctl",
    "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "utimensat",
)  # fmt: skip
_SHARED = {"pidfd_send_signal": 424, "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438, "fchmodat2": 452}
# From asm/unistd_64.h and asm-generic/unistd.h of Linux.
_SYSCALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000003E, {
        "socket": 41, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "chmod": 90, "fchmod": 91,
        "chown": 92, "fchown": 93, "lchown": 94, "ptrace": 101, "rt_sigqueueinfo": 129, "utime": 132, "chroot": 161,
        "mount": 165, "umount2": 166, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "tkill": 200,
        "tgkill": 234, "utimes": 235, "add_key": 248, "request_key": 249, "keyctl": 250, "fchownat": 260,
        "futimesat": 261, "fchmodat": 268, "unshare": 272, "utimensat": 280, "rt_tgsigqueueinfo": 297,
        "perf_event_open": 298, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321,
        "execveat": 322,
    }),
    "aarch64": (0xC00000B7, {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "umount2": 39, "mount": 40, "chroot": 51, "fchmod": 52,
        "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88, "unshare": 97, "ptrace": 117, "kill": 129,
        "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "socket": 198, "add_key": 217, "request_key": 218,
        "keyctl": 219, "clone": 220, "execve": 221, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "execveat": 281,
    }),
}  # fmt: skip
_ALSO = ("fork", "vfork", "chmod", "chown", "lchown", "utime", "utimes", "futimesat")  # x86_64 alone has them

_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF's LD|W|ABS, JEQ, JGE, JSET, RET
_CLONE_THREAD = 0x00010000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # Landlock, on every architecture


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter)))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


def limit(spec: dict[str, Any]) -> None:
    """Set the resource limits that this system has."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {
        "RLIMIT_AS": spec["memory"],  # macOS takes it and does not keep it
        "RLIMIT_CPU": spec["seconds"],
        "RLIMIT_FSIZE": spec["file_size"],
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            # Processor time over the soft limit is a signal that tells; at the hard one it is a plain kill.
            resource.setrlimit(kind, (most, most + 1 if name == "RLIMIT_CPU" and most == value else most))
        except (ValueError, OSError) as error:
            if sys.platform == "linux":
                raise SystemExit(f"cannot set {name}: {error}") from error


def protect_files(libc: Any, folder: str) -> None:
    """Refuse to write outside a folder, where the kernel can do that (Landlock, Linux 5.13)."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    # Bits 1 and 4 to 12 are writing, removing and making; 13 is renaming into other folders, 14 truncating.
    write = 0b1_1111_1111_0010 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    handled = ctypes.c_uint64(write)
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(handled), 8, 0)
    if ruleset < 0:
        return
    for path, access in ((folder, write), (os.devnull, write & (1 << 1 | 1 << 14))):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathRule(access, handle)
        if libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0) < 0:
            return
        os.close(handle)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)


def refuse_calls(libc: Any, *, network: bool) -> bool:
    """Refuse system calls that a program under test has no use for, and say whether the kernel can do that."""
    if platform.machine() not in _SYSCALLS:
        return False
    arch, numbers = _SYSCALLS[platform.machine()]
    numbers = numbers | _SHARED
    refused = [numbers[name] for name in (*_NAMES, *_ALSO) if name in numbers and not (network and name == "socket")]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if platform.machine() == "x86_64":  # the x32 interface numbers the same calls anew
        steps += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    for number in refused:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    # clone3 takes its flags by reference, where a filter cannot see them; without it, the C library takes clone.
    steps += [(_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    steps += [(_EQUAL, 0, 3, numbers["clone"]), (_LOAD, 0, 0, 16), (_HAS_BIT, 1, 0, _CLONE_THREAD)]
    steps += [(_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    program = _Program(len(steps), filters)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def confine(folder: str, *, network: bool) -> bool:
    """Take away what the program shall not have, and say whether system calls could be refused."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)  # whatever becomes of forge, this ends with it
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    drop_capabilities(libc)
    protect_files(libc, folder)
    return refuse_calls(libc, network=network)


def drop_capabilities(libc: Any) -> None:
    """Give up what root may do, such as raising its own limits."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the third version of the interface, this process
    libc.capset(header, (ctypes.c_uint32 * 6)())


def run_tests(spec: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Run a program and then each of its tests in the program's own names; yield what went wrong in each."""
    run = exec  # a program that replaces it in builtins has not passed
    scope: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    program = compiled(spec["program"], PROGRAM)
    tests = [compiled(test, "<test>") for test in spec["tests"]]
    fault = attempt(run, program, scope)
    yield fault
    for test in tests if fault is None else ():
        yield attempt(run, test, scope)


def compiled(source: str, name: str) -> CodeType | Exception:
    """Compile source code, without this file's own ``from __future__``; return what goes wrong as a value."""
    try:
        return compile(source, name, "exec", dont_inherit=True)
    except Exception as error:  # noqa: BLE001 - SyntaxError, ValueError for a null byte, RecursionError, MemoryError
        return error


def attempt(run: Callable[..., Any], code: CodeType | Exception, scope: dict[str, Any]) -> dict[str, Any] | None:
    """Run compiled code, and return what went wrong, or None."""
    try:
        if isinstance(code, Exception):
            raise code
        run(code, scope)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of the program are its own
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == PROGRAM]
        if isinstance(error, SyntaxError) and error.filename == PROGRAM:
            lines = [error.lineno]
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        return {"type": type(error).__name__, "message": message[:_MAX_TEXT], "line": lines[-1] if lines else None}
    return None


def main(path: str) -> None:
    """Do what a file says and report it."""
    file = Path(path)
    spec = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    secret = spec.pop("secret")
    say = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n") if spec["mode"] != "script" else None
    if say:  # what the program prints is not wanted
        with Path(os.devnull).open("w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), 1)
    refused = confine(os.getcwd(), network=spec["network"])  # noqa: PTH109 - a string is what the kernel takes
    limit(spec)
    if spec["mode"] == "script":
        sys.argv = ["program.py"]
        scope = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(spec["program"], PROGRAM, "exec", dont_inherit=True), scope)  # noqa: S102 - what this is for
        return
    assert say is not None
    dumps = json.dumps  # as above: what the program makes of the module does not count
    for report in run_tests(spec) if spec["mode"] == "tests" else [{"refused": refused, **look(spec)}]:
        say.write(f"{secret}{dumps(report)}\n")
        say.flush()  # what comes next may never return
    os._exit(0)  # neither threads nor exit handlers of the program may delay the end


def look(spec: dict[str, Any]) -> dict[str, Any]:
    """Try what must not be possible, instead of believing that it was taken away."""
    import socket

    found = {}
    for name, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6), ("unix", getattr(socket, "AF_UNIX", 1))):
        try:
            socket.socket(family).close()
            found[name] = True
        except OSError:
            found[name] = False
    try:
        Path(spec["outside"]).write_text("", encoding="utf-8")
        found["outside"] = True
    except OSError:
        found["outside"] = False
    return {"can": found}


if __name__ == "__main__":
    main(sys.argv[1])
