"""The system calls that a program under test may make: a seccomp filter, made here and set by :mod:`.jail`.

A list of what is allowed, for a list of what is not has a hole for each call that its author did not think of, and for
each that a later kernel brings. Where a call does both what programs need and what they shall not do, its arguments
decide. The form is classic BPF (https://docs.kernel.org/userspace-api/seccomp_filter.html).
"""

from __future__ import annotations

import functools
import struct

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Those that the numbers are known of, and what the kernel calls them."""

# Each with its number on x86_64 and on aarch64, from asm/unistd_64.h and asm-generic/unistd.h of Linux. What changes
# modes, owners and times or locks whole files is not among them, for Landlock does not keep that to the folder.
_ALLOWED = """
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291,
lseek 8 62, pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, openat 257 56, creat 85 -, access 21 -, faccessat 269 48, faccessat2 439 439,
getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38,
renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, link 86 -, linkat 265 37, unlink 87 -, unlinkat 263 35,
symlink 88 -, symlinkat 266 36, readlink 89 -, readlinkat 267 78, mknod 133 -, mknodat 259 33, umask 95 166,
truncate 76 45, ftruncate 77 46, fallocate 285 47, fadvise64 221 223, readahead 187 213, fsync 74 82,
fdatasync 75 83, sync_file_range 277 84, statfs 137 43, fstatfs 138 44, sendfile 40 71,
copy_file_range 326 285, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12,
flistxattr 196 13, dup 32 23, dup2 33 -, dup3 292 24, close_range 436 436, pipe 22 -, pipe2 293 59,
select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21,
epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19, timerfd_create 283 85,
timerfd_settime 286 86, timerfd_gettime 287 87, futex 202 98, futex_waitv 449 449, wait4 61 260, waitid 247 95,
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, msync 26 227,
mincore 27 232, membarrier 324 283,
exit 60 93, exit_group 231 94, getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155,
getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148,
getresgid 120 150, getgroups 115 158, capget 125 90, set_tid_address 218 96, set_robust_list 273 99,
get_robust_list 274 100, rseq 334 293, arch_prctl 158 -, getrlimit 97 163, setrlimit 160 164, getrusage 98 165,
getpriority 140 141, sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126,
sched_rr_get_interval 148 127, getcpu 309 168, uname 63 160, sysinfo 99 179, getrandom 318 278,
restart_syscall 219 128,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169,
time 201 -, times 100 153, getitimer 36 102, setitimer 38 103, alarm 37 -, pause 34 -,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132,
sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, sendmmsg 307 269, recvmmsg 299 243,
shutdown 48 210, getsockname 51 204, getpeername 52 205, getsockopt 55 209
"""
_NETWORK = """
bind 49 200, connect 42 203, listen 50 201, accept 43 202, accept4 288 242, setsockopt 54 208
"""
_BY_ARGUMENT = """
clone 56 220, fcntl 72 25, ioctl 16 29, prctl 157 167, prlimit64 302 261, sched_setaffinity 203 122,
socket 41 198, socketpair 53 199
"""

_NEW = 424
"""From here on numbers are the same everywhere, and C libraries know what to do without the calls: they are told that
there is none, where EPERM would be taken for an answer."""

_LOAD, _EQUAL, _AT_LEAST, _ABOVE, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06  # BPF's LD|W|ABS, JEQ, …
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _ENOTTY = 1, 38, 25
_X32 = 0x40000000

_Steps = list[tuple[int, int, int, int]]

_THREAD = 0x00010000
_THREAD_FLAGS = 0x007D0F00
"""What C libraries make threads with; no namespaces, and no tracing."""

# F_DUPFD to F_SETLKW without F_SETFL, the locks of open files, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Not what has a signal
# sent to another process (F_SETOWN, F_SETSIG, leases, notices), and not what makes pipes larger.
_FCNTL = (0, 1, 2, 3, 5, 6, 7, 36, 37, 38, 1030, 1032)
_F_SETFL, _O_ASYNC = 4, 0x2000
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others are answered as by a file that is no terminal.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_PRCTL = (15, 16)  # the names of threads
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAMS = tuple(1 | flags for flags in (0, 0x800, 0x80000, 0x80800))  # with SOCK_NONBLOCK, SOCK_CLOEXEC


@functools.cache
def calls_filter(machine: str, *, network: bool) -> bytes | None:
    """Return the filter as the kernel takes it.

    Args:
        machine: The architecture, as ``platform.machine`` calls it.
        network: Whether sockets of the internet are allowed.

    Returns:
        The instructions, or None for an architecture whose numbers nobody has listed.
    """
    if machine not in _ARCHITECTURES:
        return None
    column = list(_ARCHITECTURES).index(machine)
    steps: _Steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":  # the x32 interface numbers the same calls anew
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    numbers = _numbers(_BY_ARGUMENT, column)
    for name, body in _bodies(network=network).items():
        steps += [(_EQUAL, 0, len(body), numbers[name]), *body]
    allowed = _numbers(_ALLOWED, column) | (_numbers(_NETWORK, column) if network else {})
    for low, high in _ranges(sorted(allowed.values())):
        steps += [(_AT_LEAST, 0, 2, low), (_ABOVE, 1, 0, high), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_AT_LEAST, 0, 1, _NEW), (_RETURN, 0, 0, _ERRNO | _ENOSYS), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _bodies(*, network: bool) -> dict[str, _Steps]:
    """Return what decides calls by their arguments; each ends in an answer."""
    thread = [(_HAS_BIT, 2, 0, 0xFFFFFFFF & ~_THREAD_FLAGS), (_HAS_BIT, 0, 1, _THREAD)]
    flags = [(_EQUAL, 0, 4, _F_SETFL), _load(2), (_HAS_BIT, 1, 0, _O_ASYNC), (_RETURN, 0, 0, _ALLOW)]
    refuse = (_RETURN, 0, 0, _ERRNO | _EPERM)
    return {
        # clone3 takes its flags by reference, where a filter cannot see them; without it, C libraries take clone.
        "clone": [_load(0), *thread, (_RETURN, 0, 0, _ALLOW), refuse],
        "fcntl": [_load(1), *flags, refuse, *_one_of(_FCNTL), refuse],
        "ioctl": [_load(1), *_one_of(_IOCTL), (_RETURN, 0, 0, _ERRNO | _ENOTTY)],
        "prctl": [_load(0), *_one_of(_PRCTL), refuse],  # not what ends it with forge, PR_SET_PDEATHSIG
        "prlimit64": [_load(0), *_one_of((0,)), refuse],  # its own limits, of no other process
        "sched_setaffinity": [_load(0), *_one_of((0,)), refuse],
        "socket": [_load(0), *_one_of((_AF_INET, _AF_INET6) if network else ()), refuse],
        # asyncio has a pair of its own. A pair of datagram sockets can send to any other.
        "socketpair": [_load(0), (_EQUAL, 0, 9, _AF_UNIX), _load(1), *_one_of(_STREAMS), refuse],
    }


def _load(argument: int) -> tuple[int, int, int, int]:
    """Load the lower half of an argument, all that the kernel looks at in those that are looked at here."""
    return (_LOAD, 0, 0, 16 + 8 * argument)


def _one_of(values: tuple[int, ...]) -> _Steps:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]


def _numbers(table: str, column: int) -> dict[str, int]:
    """Read a table of names and numbers."""
    rows = [row.split() for row in table.replace("\n", " ").split(",")]
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return what follows one another as first and last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
