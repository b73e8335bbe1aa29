"""What runs on this machine took: a table in forge's cache, by which later plans tell what ends first.

A line holds for one machine and for the versions that it was measured with. Lines of others are not used, and whoever
reads the table is told how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import forge
from forge import records
from forge.disk.cache import private
from forge.disk.files import write_json
from forge.errors import ForgeError
from forge.machine.places import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

    from forge.machine.machine import Machine

NAME = "speeds.json"

KEPT = 5
"""How many runs of one kind are kept: the newest."""

_DECIDING = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "unsloth", "liger-kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What one run took.

    Attributes:
        backend: The plugin that loaded the model.
        parameters: The model's.
        bits: ``"4bit"`` or ``"8bit"``; None for neither.
        checkpointing: Whether activations were made again in the backward pass.
        start: Seconds until the end of the first step, less a later step and the reading of rows.
        flops: Floating-point operations a second, padding included; None if they cannot be counted.
        tokens_per_second: Tokens of the rows, for people.
        when: The end of the run, in seconds since the epoch.
    """

    backend: str
    parameters: int
    bits: str | None
    checkpointing: bool
    start: float
    flops: float | None
    tokens_per_second: float | None
    when: float

    @property
    def kind(self) -> tuple[Any, ...]:
        """What runs have in common of which only the newest are kept."""
        return self.backend, self.parameters, self.bits, self.checkpointing


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A run in the table: the machine, the versions, what it took."""

    machine: str
    versions: Mapping[str, str]
    run: Timed


@dataclass(frozen=True, slots=True)
class Speeds:
    """What the table says about a machine.

    Attributes:
        runs: The runs on it with today's versions, the newest first.
        stale: How many there are of other versions, which are not used.
        fault: Why the table cannot be read, as a phrase; empty if it can, or if there is none.
    """

    runs: tuple[Timed, ...] = ()
    stale: int = 0
    fault: str = ""


def table() -> Path:
    """Return where the table is."""
    return cache_folder() / NAME


def read(machine: Machine) -> Speeds:
    """Return what is known of a machine. Never raises: a plan is made without the table too."""
    lines, fault = _lines()
    mine = [line for line in lines if line.machine == name_of(machine)]
    fit = [line.run for line in mine if line.versions == versions_of(machine)]
    return Speeds(tuple(sorted(fit, key=lambda run: -run.when)), len(mine) - len(fit), fault)


def add(machine: Machine, run: Timed) -> str | None:
    """Add a run to the table, and return why that cannot be, or None."""
    path = table()
    if why := private(path.parent):
        return why
    lines, _ = _lines()  # a damaged table is begun anew
    new = Line(machine=name_of(machine), versions=versions_of(machine), run=run)
    alike = [line for line in lines if (line.machine, line.run.kind) == (new.machine, run.kind)]
    alike.sort(key=lambda line: (line.versions == new.versions, line.run.when))
    gone = alike[: max(0, len(alike) - KEPT + 1)]
    try:
        write_json(path, [records.to_json(line) for line in (*(line for line in lines if line not in gone), new)])
    except (OSError, ForgeError) as error:
        return f"{path} cannot be written ({error})"
    return None


def name_of(machine: Machine) -> str:
    """Return a machine as the table tells it apart: system, processor cores, memory and cards."""
    cards = [f"{card.name} {card.memory} {card.capability}" for card in machine.accelerators]
    return ", ".join(
        [f"{machine.platform} {machine.arch}", f"{machine.cores} cores", f"{machine.memory / 2**30:.0f} GiB", *cards]
    )


def versions_of(machine: Machine) -> dict[str, str]:
    """Return the versions that speed depends on."""
    known = {name: machine.versions[name] for name in _DECIDING if name in machine.versions}
    return {"forge": forge.__version__, "python": machine.python, **known}


def _lines() -> tuple[list[Line], str]:
    path = table()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list):
            return [], f"{path} cannot be read (it holds no list of runs)"
        return [records.from_json(Line, each) for each in found], ""
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return [], f"{path} cannot be read ({type(error).__name__}: {error})"
