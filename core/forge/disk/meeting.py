"""Where the launchers of a run's nodes meet, and what they say in the end: files in the run folder, which all share."""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

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
        folder: The run's folder as the first node knows it, by whose path all of them find its files.
    """

    id: str
    plan: str
    address: str
    port: int
    nodes: int
    folder: str

    @classmethod
    def call(cls, folder: Path, plan: Path, nodes: int, environ: Mapping[str, str]) -> Self:
        """Say in the run folder where to meet: at ``MASTER_ADDR`` and ``MASTER_PORT`` if these are set, as on Slurm."""
        address = "127.0.0.1" if nodes == 1 else environ.get("MASTER_ADDR") or _own_name()
        named = environ.get("MASTER_PORT", "")
        port = int(named) if named.isdigit() and nodes > 1 else free_port(address)
        meeting = cls(uuid.uuid4().hex, plan.name, address, port, nodes, str(folder.resolve()))
        write_json(folder / FILE, asdict(meeting))
        return meeting

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what the file in a run folder says. Raises :class:`RunError` if there is none."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"nobody waits for a node in {folder}", f"it has no {FILE}") from None
        except OSError as error:  # on a disk of the network, as it is replaced
            raise RunError(f"{folder / FILE} cannot be read", str(error)) from error
        except (ValueError, TypeError) as error:
            raise RunError(f"{folder / FILE} is damaged", str(error)) from error

    def say(self, folder: Path, node: int, ended: Sequence[Ended], *, given_up: bool = False) -> None:
        """Write down how the workers of a node ended, or that it was asked to stop before it had any."""
        said = {"meeting": self.id, "ended": [asdict(each) for each in ended], "given_up": given_up}
        write_json(_ends(folder, node), said)

    def is_over(self, folder: Path) -> bool:
        """Whether the first node's launcher has ended."""
        return self._word(folder, 0) is not None

    def is_given_up(self, folder: Path) -> bool:
        """Whether the first node was asked to stop while it waited for the others."""
        return bool((self._word(folder, 0) or {}).get("given_up"))

    def _word(self, folder: Path, node: int) -> dict[str, Any] | None:
        """Return what a node's launcher said as it ended; None as long as it has not, or where that cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            data: dict[str, Any] = json.loads(_ends(folder, node).read_text(encoding="utf-8"))
            return data if data["meeting"] == self.id else None
        return None

    def said(self, folder: Path) -> list[Ended] | None:
        """Return how the workers of all nodes ended, the first first; None as long as a node has not said it."""
        found: list[Ended] = []
        for node in range(self.nodes):
            if (data := self._word(folder, node)) is None:
                return None
            found += [Ended(**each) for each in data["ended"]]
        return sorted(found, key=lambda each: each.time)


def _own_name() -> str:
    """Return the name under which other machines know this one."""
    name = socket.getfqdn()
    return name if not name.startswith("localhost") else socket.gethostname()


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
