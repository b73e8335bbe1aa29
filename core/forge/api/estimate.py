"""What a training is expected to take of a device's memory: a record that a plugin fills in and the core shows.

Each number says how it is known. An estimate that is not marked as one is worse than none: people buy cards by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from forge import records
from forge.job.literal import setting

if TYPE_CHECKING:
    from collections.abc import Mapping


How = Literal["measured", "estimated", "unknown"]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the memory.

    Attributes:
        name: ``"weights"``, ``"gradients"``, ``"optimizer"``, ``"activations"``, ``"logits"``, ``"overhead"``, …
        bytes: What it takes where it takes most; None if that is unknown.
        how: How that is known. ``"measured"`` is counted in files or in memory.
        note: What it is, as a phrase.
    """

    name: str
    bytes: int | None
    how: How
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lever:
    """Changes of the job that belong together and take less memory.

    Attributes:
        changes: Keys and values, as ``("train.gradient_checkpointing", True)``.
        saves: Bytes less at the peak, if nothing else is changed.
        cost: What they cost, as a phrase; empty if the training stays the same.

    Example:
        >>> str(Lever((("train.gradient_checkpointing", True),), saves=1_000, cost="a third more time"))
        '[train] gradient_checkpointing = true'
    """

    changes: tuple[tuple[str, Any], ...]
    saves: int
    cost: str = ""

    def __str__(self) -> str:
        """Return the changes as a job file says them."""
        return " and ".join(setting(key, value) for key, value in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The memory that a training takes on its device.

    Attributes:
        parts: The parts. They are not all there at once, so that ``peak`` may be less than their sum.
        peak: The most that is there at once, in bytes: for a GPU what ``torch.cuda.max_memory_allocated`` would say;
            None if too much is unknown. A part that is unknown is not in it.
        process: The same with what lies outside torch's allocator: on a GPU the CUDA context, on a CPU the libraries.
        device: The device, by name.
        room: Its memory in bytes; None if unknown.
        batch: What the estimate is for, as a phrase: ``"4 rows of 2048 tokens"``.
        levers: What would take less, the most effective first.
        cure: If it does not fit: levers that together make it fit, the gentlest first; empty if none do.
        cured: What the process would take with them.

    Example:
        >>> parts = (Part("weights", 2_000, "measured"), Part("activations", None, "unknown"))
        >>> found = Estimate(parts=parts, peak=2_000, process=2_500, device="a GPU", room=4_000, batch="1 row")
        >>> found.fits, found.partial
        (True, True)
    """

    parts: tuple[Part, ...]
    peak: int | None
    process: int | None
    device: str
    room: int | None
    batch: str
    levers: tuple[Lever, ...] = ()
    cure: tuple[Lever, ...] = ()
    cured: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the device is large enough; None if that is unknown."""
        return None if self.process is None or self.room is None else self.process <= self.room

    @property
    def partial(self) -> bool:
        """Whether a part is unknown, so that the peak is a lower bound."""
        return any(part.bytes is None for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON data, with what ``fits`` says."""
        return {**records.to_json(self), "fits": self.fits}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Estimate:
        """Rebuild an estimate from :meth:`to_json`'s data. Raises :class:`ValueError` if it is none."""
        return records.from_json(cls, data)
