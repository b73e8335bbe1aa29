"""Trying the sandbox on this machine, before anything is trained: what must not be possible is tried, not believed."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import UsageError
from forge_huggingface.rewards.sandbox import folders
from forge_huggingface.rewards.sandbox.run import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from forge_huggingface.rewards.sandbox.run import Limits


_SLEEPER = "import sys; sys.stdin.read()"
_PROBE = Path(__file__).with_name("probe.py")


def check(limits: Limits, *, processes: bool = False) -> list[str]:
    """Try the sandbox on this machine, and remove what earlier ones have left.

    Args:
        limits: What programs may use.
        processes: Whether programs may run that can reach other processes.

    Returns:
        What it cannot do here, as phrases; no network is not among them.

    Raises:
        UsageError: The network cannot be cut off or other processes can be reached, and nobody said that this is well;
            or no program can run.
    """
    folders.sweep()
    can = _tried(limits)
    open_ = [name for name in ("ipv4", "ipv6", "unix") if name in can]
    if open_ and not limits.network:
        raise UsageError(
            "what the model writes cannot be cut off from the network here",
            f"it could connect ({', '.join(open_)}): this needs Linux on x86_64 or aarch64 with seccomp",
            "run it where that is, or accept it with args = { allow_network = true }",
        )
    reached = [name for name in ("signals", "limits", "priority", "memory") if name in can]
    if reached and not processes:
        raise UsageError(
            "what the model writes cannot be kept from your other processes here, this training among them",
            f"it could reach their {', '.join(reached)}: this needs Linux with seccomp, on x86_64 or aarch64, or with "
            "namespaces of users",
            "run it where that is, or accept it with args = { allow_processes = true }",
        )
    notes = []
    if reached:
        notes.append(f"it can reach your other processes ({', '.join(reached)}), as allow_processes says")
    if "outside" in can:
        notes.append("files outside its folder cannot be protected here (Landlock, Linux 5.13 or newer, is missing)")
    if "fork" in can:
        notes.append("it may start further processes, which seccomp would refuse")
    if sys.platform != "linux":
        notes.append(f"its memory cannot be limited on {sys.platform}")
    return notes


def _tried(limits: Limits) -> list[str]:
    """Return what a program can do that it should not, by the names that :mod:`.probe` has for it."""
    with contextlib.ExitStack() as stack:
        outside = stack.enter_context(tempfile.TemporaryDirectory())
        other = subprocess.Popen([sys.executable, "-I", "-S", "-c", _SLEEPER], stdin=subprocess.PIPE)
        stack.callback(other.wait)
        stack.callback(other.kill)
        stack.enter_context(other.stdin)  # type: ignore[arg-type]
        given = {
            "outside": str(Path(outside, "written")),
            "other": other.pid,
            "addresses": stack.enter_context(_listening(outside)),
        }
        outcome = run_script(_PROBE.read_text(encoding="utf-8"), json.dumps(given), limits)
    try:
        found: list[str] = json.loads(outcome.output)
    except ValueError:
        why = f"exit code {outcome.code}: {outcome.errors.strip()[-300:] or outcome.ended}"
        do = "raise memory in its args, or see what the system forbids"
        raise UsageError("programs cannot be run here", why, do) from None
    return found


@contextlib.contextmanager
def _listening(folder: str) -> Iterator[dict[str, tuple[int, Any]]]:
    """Listen where a program should not get through; give the family and address of each, by name."""
    wanted: list[tuple[str, int, Any]] = [
        ("ipv4", socket.AF_INET, ("127.0.0.1", 0)),
        ("ipv6", socket.AF_INET6, ("::1", 0)),
    ]
    if hasattr(socket, "AF_UNIX"):
        wanted.append(("unix", socket.AF_UNIX, str(Path(folder, "s"))))
    with contextlib.ExitStack() as stack:
        found: dict[str, tuple[int, Any]] = {}
        for name, family, address in wanted:
            with contextlib.suppress(OSError):  # no IPv6 here, or a folder whose name is too long for a socket
                listener = stack.enter_context(socket.socket(family))
                listener.bind(address)
                listener.listen()
                found[name] = (int(family), listener.getsockname())
        yield found
