"""How jobs get to where they are sent, and what becomes of them there.

What runs there is ``forge run`` or ``forge resume`` and nothing else; a target only knows how a command gets there, how
it is doing, what it printed, and how its run folder comes back.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from forge.api.offer import Finding
    from forge.job.job import Job

State = Literal["waiting", "running", "done", "failed", "cancelled", "unknown"]


@dataclass(frozen=True, slots=True)
class Status:
    """How something that was sent is doing.

    Attributes:
        state: In one word. ``"waiting"`` and ``"running"`` may change, the others are the end, but for ``"unknown"``.
        about: What the target itself says, such as the reason why it waits.
    """

    state: State
    about: str = ""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in {"done", "failed", "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What is known here of something that was sent: ``ticket.json`` in its run folder.

    Attributes:
        target: Where it was sent.
        id: What the target calls it; empty while it is sent.
        options: With which options, by their names. No secret is among them.
        sent: When, in seconds since the epoch.
        address: Where a person can look at it, if there is such a place.
        status: How it was when that was asked last.
    """

    target: str
    id: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    sent: float = 0.0
    address: str | None = None
    status: Status = Status("unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is sent, and where it is prepared.

    Attributes:
        run: The run folder on this machine.
        name: The run's name, ``<job>/<time>``, which has only letters, digits, dashes, dots and underscores.
        job: The job.
        packages: Exact requirements of all that the plan needs, for a machine where nothing is installed.
    """

    run: Path
    name: str
    job: Job
    packages: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """The folder of what is sent: ``job.toml``, what it needs in ``files/``, and what the target adds."""
        return self.run / "submit"

    @property
    def title(self) -> str:
        """The run's name as one word of letters (a-z), digits and dashes, for services that take no others."""
        return re.sub(r"[^a-z0-9]+", "-", f"forge-{self.name}".lower())


Options = TypeVar("Options")


class Submitter(ABC, Generic[Options]):
    """How a job gets to a target, and what becomes of it there. Made anew for each command.

    Every function may raise a :class:`~forge.errors.ForgeError`, whose words are for the user.

    Attributes:
        keys: The pydantic model of its options: those of ``[submit.<name>]`` in the user's ``config.toml``, and of
            ``--option``.
        shares_disk: Whether the job runs on this machine's disk. Then paths stay what they are, the run folder is the
            one here, and nothing needs to be fetched. Without it, local files that the job names are copied into
            the bundle.
        limit: The most bytes of such files.
        options: The options, checked.
    """

    keys: ClassVar[type]
    shares_disk: ClassVar[bool] = False
    limit: ClassVar[int] = 64 * 2**20

    def __init__(self, options: Options) -> None:
        self.options = options

    def machine(self) -> str | None:
        """Return the preset of ``FORGE_MACHINE`` that is nearest to what the job will run on; None if nobody knows."""
        return None

    @abstractmethod
    def check(self, bundle: Bundle) -> Iterable[Finding]:
        """Say what is wrong before anything is sent: a missing tool, an account, an impossible option."""

    @abstractmethod
    def write(self, bundle: Bundle) -> Path:
        """Write what is sent into ``bundle.folder``, where ``job.toml`` lies, and return the file to show."""

    @abstractmethod
    def submit(self, bundle: Bundle) -> tuple[str, str | None]:
        """Send what was written; return what the target calls it, and an address for people if there is one.

        Raises:
            ForgeError: The target did not take it.
            MachineError: It gave no answer, so that it may have; what is known of the job is kept then.
        """

    @abstractmethod
    def status(self, ticket: Ticket, run: Path) -> Status:
        """Ask how it is doing."""

    @abstractmethod
    def logs(self, ticket: Ticket, run: Path, *, follow: bool) -> Iterator[str]:
        """Yield what it printed, line by line; with ``follow`` until it has ended."""

    @abstractmethod
    def cancel(self, ticket: Ticket, run: Path) -> None:
        """End it. A run that trains is asked to save a checkpoint, where the target can ask."""

    def fetch(self, ticket: Ticket, run: Path) -> None:
        """Bring its run folder into ``run``. Not called where the disk is shared."""
        raise NotImplementedError
