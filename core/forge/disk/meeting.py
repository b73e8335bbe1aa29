"""Where the launchers of a run's nodes meet, and what they say in the end: files in the run folder, which all share."""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from forge.disk.files import write_json
from forge.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LAUNCHER = "FORGE_LAUNCHER"
"""The variable by which a worker knows the process of its launcher."""

NODE = "FORGE_NODE"
"""The variable that says which node this is; 0, the first, is the one whose forge made the plan."""

FILE = "meeting.json"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended.

    Attributes:
        rank: Its number among all.
        pid: Its process.
        code: Its exit code; of a signal, its number below 0.
        time: When it was seen, in seconds since the epoch.
        helped: Whether it was made to end, since another one of its node had failed.
    """

    rank: int
    pid: int
    code: int
    time: float
    helped: bool = False


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where one attempt's launchers meet.

    Attributes:
        id: Its own name, by which a file of an earlier attempt is known.
        plan: The name of the plan's file in the run folder.
        address: The first node's address.
        port: A free port there.
        nodes: How many nodes come.
    """

    id: str
    plan: str
    address: str
    port: int
    nodes: int

    @classmethod
    def call(cls, folder: Path, plan: Path, nodes: int, environ: Mapping[str, str]) -> Self:
        """Say in the run folder where to meet: at ``MASTER_ADDR`` and ``MASTER_PORT`` if these are set, as on Slurm."""
        own = socket.getfqdn() if not socket.getfqdn().startswith("localhost") else socket.gethostname()
        address = environ.get("MASTER_ADDR") or own
        named = environ.get("MASTER_PORT", "")
        port = int(named) if named.isdigit() and nodes > 1 else free_port(address)
        meeting = cls(uuid.uuid4().hex, plan.name, address if nodes > 1 else "127.0.0.1", port, nodes)
        write_json(folder / FILE, asdict(meeting))
        return meeting

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what the file in a run folder says. Raises :class:`RunError` if there is none."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"nobody waits for a node in {folder}", f"it has no {FILE}") from None
        except (ValueError, TypeError) as error:
            raise RunError(f"{folder / FILE} is damaged", str(error)) from error

    def say(self, folder: Path, node: int, ended: Sequence[Ended]) -> None:
        """Write down how the workers of a node ended."""
        write_json(_ends(folder, node), {"meeting": self.id, "ended": [asdict(each) for each in ended]})

    def is_over(self, folder: Path) -> bool:
        """Whether the first node's launcher has ended."""
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads(_ends(folder, 0).read_text(encoding="utf-8"))["meeting"] == self.id)
        return False

    def said(self, folder: Path) -> list[Ended] | None:
        """Return how the workers of all nodes ended, the first first; None as long as a node has not said it."""
        found: list[Ended] = []
        for node in range(self.nodes):
            try:
                data = json.loads(_ends(folder, node).read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                return None
            if data["meeting"] != self.id:
                return None
            found += [Ended(**each) for each in data["ended"]]
        return sorted(found, key=lambda each: each.time)


def _ends(folder: Path, node: int) -> Path:
    return folder / f"ended.node{node}.json"


def node_of(environ: Mapping[str, str]) -> int:
    """Return the number of this node."""
    return int(environ.get(NODE, "0"))


def free_port(address: str) -> int:
    """Return a port of this machine that nobody listens at."""
    for name in (address, ""):
        try:
            with socket.socket() as listening:
                listening.bind((name, 0))
                return int(listening.getsockname()[1])
        except OSError:  # the address is not this machine's own name for itself
            continue
    raise RunError("this machine has no free port", f"tried {address}")
