"""The process in which a model's program runs: ``python -I jail.py SPEC``, started by :mod:`.run`.

It reads what to run, takes from itself what the program shall not have, and only then runs it. So there is one start
of an interpreter for each program, and nothing runs between fork and exec in a process that may have threads.

On Linux four things hold it, of which each is taken where it is to be had, so that it also works inside containers:

- namespaces of users, processes, shared memory and the network, where they are allowed: what is outside cannot be
  named, and what the program has started ends with it;
- resource limits for memory, processor time and the size of files;
- a seccomp filter, from :mod:`.calls`, which lets it make only the system calls that programs need;
- Landlock (https://docs.kernel.org/userspace-api/landlock.html), from Linux 5.13 on, which refuses to write outside the
  folder and to look into other processes, and in later kernels signals and sockets too.

What it reports goes to the standard output as lines of JSON behind a word that only forge knows, so that a program that
ends early, or prints what looks like a report, has not passed its tests. It is no fence against a program that
searches the memory it runs in; nothing that shares a process with its judge is.
"""

# It runs under -I, without forge's folders on the path: standard library only, and little of that, for each import is
# paid once a program.
from __future__ import annotations

import ctypes
import marshal
import os
import sys
from _json import encode_basestring_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType
    from typing import Any


PROGRAM = "<program>"
_MAX_TEXT = 400

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _SIGKILL = 1, 4, 9
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_NEW_USER, _NEW_PID, _NEW_IPC, _NEW_NET = 0x10000000, 0x20000000, 0x08000000, 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # Landlock, on every architecture


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


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


def end_with(libc: Any, parent: int) -> None:
    """End when the parent does, whatever becomes of it; also if it is no more."""
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def part(libc: Any, *, network: bool) -> None:
    """Go on in namespaces of its own, where that is allowed: this returns in a grandchild.

    A namespace of processes begins with a child, and all in it end with that one. It runs no program, so that none can
    make it stay when forge has gone, and waits.
    """
    user, group = os.getuid(), os.getgid()
    inside = _NEW_PID | _NEW_IPC | (0 if network else _NEW_NET)
    if libc.unshare(_NEW_USER | inside) == 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            try:
                with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib takes long to import
                    file.write(text)
            except OSError:  # then it is nobody in there, and may still do with its files what it could
                break
    elif libc.unshare(inside) != 0:  # as root where no namespaces of users are
        return
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # the program may not trace those two
    alive, held = os.pipe()
    if child := os.fork():
        os.close(alive)
        code = end_of(child)
        number = -code if code < 0 else code - 128
        if 0 < number < 64:  # else it is a code of its own
            os.kill(os.getpid(), number)
        os._exit(code)
    os.close(held)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    os.set_blocking(alive, False)
    try:
        os.read(alive, 1)
        os._exit(1)  # the parent was gone before it could be followed
    except BlockingIOError:
        os.close(alive)
    if child := os.fork():
        code = end_of(child)
        os._exit(code if code >= 0 else 128 - code)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def end_of(child: int) -> int:
    """Wait for a child and return its exit code, below 0 for a signal."""
    for handle in range(3):  # so that whoever reads them sees their end
        os.close(handle)
    while True:
        ended, status = os.wait()  # orphans of the namespace come here too
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def protect(libc: Any, folder: str, *, network: bool) -> None:
    """Refuse to write outside a folder and to reach other processes, as far as the kernel can do that (Landlock)."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    # Bits 1 and 4 to 12 are writing, removing and making; 13 is renaming into other folders, 14 truncating, 15 devices.
    write = 0b1_1111_1111_0010
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        write |= 1 << bit if version >= since else 0
    # Binding and connecting of TCP; sockets with abstract names and signals to processes outside.
    ruled = _Ruleset(write, 0 if network or version < 4 else 0b11, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(ruled), size, 0)
    if ruleset < 0:
        return
    for path, access in ((folder, write), (os.devnull, write & (1 << 1 | 1 << 14))):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathRule(access, handle)
        if libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0) < 0:
            return
        os.close(handle)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def drop_capabilities(libc: Any) -> None:
    """Give up what root may do, such as raising its own limits."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the third version of the interface, this process
    libc.capset(header, (ctypes.c_uint32 * 6)())


def confine(spec: dict[str, Any]) -> None:
    """Take away what the program shall not have, as far as this system can; whether it did, :mod:`.trial` tries."""
    limit(spec)
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    end_with(libc, spec["parent"])
    part(libc, network=spec["network"])
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    drop_capabilities(libc)
    protect(libc, os.getcwd(), network=spec["network"])  # noqa: PTH109 - as above
    if spec["calls"]:
        program = _Program(len(spec["calls"]) // 8, spec["calls"])
        libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


def run_tests(spec: dict[str, Any]) -> Iterator[str]:
    """Run a program and then each of its tests in the program's own names; yield what went wrong in each, as JSON."""
    run = exec  # a program that replaces it in builtins has not passed
    scope: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    program = compiled(spec["program"], PROGRAM)
    tests = [compiled(test, "<test>") for test in spec["tests"]]
    fault = attempt(run, program, scope)
    yield fault
    for test in tests if fault == "null" else ():
        yield attempt(run, test, scope)


def compiled(source: str, name: str) -> CodeType | Exception:
    """Compile source code, without this file's own ``from __future__``; return what goes wrong as a value."""
    try:
        return compile(source, name, "exec", dont_inherit=True)
    except Exception as error:  # noqa: BLE001 - SyntaxError, ValueError for a null byte, RecursionError, MemoryError
        return error


def attempt(
    run: Callable[..., Any],
    code: CodeType | Exception,
    scope: dict[str, Any],
    quoted: Callable[[str], str] = encode_basestring_ascii,
) -> str:
    """Run compiled code, and return what went wrong, or null."""
    try:
        if isinstance(code, Exception):
            raise code
        run(code, scope)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of the program are its own
        line: int | None = None
        place = error.__traceback__
        while place:
            line = place.tb_lineno if place.tb_frame.f_code.co_filename == PROGRAM else line
            place = place.tb_next
        if isinstance(error, SyntaxError) and error.filename == PROGRAM:
            line = error.lineno
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        said = f'{{"type": {quoted(type(error).__name__)}, "message": {quoted(message[:_MAX_TEXT])}'
        return f'{said}, "line": {"null" if line is None else line}}}'
    return "null"


def main(path: str) -> None:
    """Do what a file says and report it."""
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        spec = marshal.load(file)  # noqa: S302 - forge wrote it
    os.unlink(path)  # noqa: PTH108 - as above
    confine(spec)
    if spec["mode"] == "script":
        sys.argv = ["program.py"]
        scope = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(spec["program"], PROGRAM, "exec", dont_inherit=True), scope)  # noqa: S102 - what this is for
        return
    secret = spec.pop("secret")
    say = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # what the program prints is not wanted
    os.close(nothing)
    for report in run_tests(spec):
        say.write(f"{secret}{report}\n")
        say.flush()  # what comes next may never return
    os._exit(0)  # neither threads nor exit handlers of the program may delay the end


if __name__ == "__main__":
    main(sys.argv[1])
