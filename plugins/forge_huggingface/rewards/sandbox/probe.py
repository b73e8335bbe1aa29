"""A program for the sandbox that tries what must not be possible, and prints what is. :mod:`.trial` starts it.

It does no harm where it succeeds: what it does to the other process changes nothing, and that process is there for it.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Try everything."""
    given = json.loads(input())
    other = given["other"]
    tries: dict[str, list[Callable[[], object]]] = {
        name: [functools.partial(connect, family, address)] for name, (family, address) in given["addresses"].items()
    }
    tries["outside"] = [lambda: Path(given["outside"]).write_text("", encoding="utf-8")]
    if sys.platform == "win32":
        tries |= {name: [bool] for name in ("signals", "limits", "priority", "memory", "fork")}
    else:
        tries["signals"] = [lambda: os.kill(other, 0), lambda: be_told(other)]
        tries["limits"] = [lambda: limits(other)]
        tries["priority"] = [lambda: priority(other)]
        tries["memory"] = [lambda: Path(f"/proc/{other}/mem").open("r+b").close()]
        tries["fork"] = [lambda: os.fork() or os._exit(0)]
    sys.stdout.write(json.dumps([name for name, ways in tries.items() if any(map(works, ways))]))


def works(way: Callable[[], object]) -> bool:
    """Whether something can be done."""
    try:
        way()
    except (OSError, AttributeError):
        return False
    return True


def connect(family: int, address: Any) -> None:
    """Connect to an address."""
    with socket.socket(family) as made:
        made.settimeout(1)
        made.connect(tuple(address) if isinstance(address, list) else address)


def be_told(other: int) -> None:
    """Have another process told when there is something to read."""
    import fcntl

    fcntl.fcntl(0, getattr(fcntl, "F_SETOWN", 8), other)


def limits(other: int) -> None:
    """Ask for the limits of another process, which is the call that sets them."""
    import resource

    resource.prlimit(other, resource.RLIMIT_CORE)


def priority(other: int) -> None:
    """Set the priority of another process to what it is."""
    os.setpriority(os.PRIO_PROCESS, other, os.getpriority(os.PRIO_PROCESS, other))


main()
