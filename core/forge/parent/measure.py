"""Finding out how fast this machine is: a short run of each backend, whose times go into the machine's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.keys import PluginKeys
from forge.disk import speeds
from forge.disk.cache import private
from forge.disk.scratch import scratch
from forge.errors import ForgeError, Interrupted
from forge.job.read import Change, read
from forge.parent.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from forge.api.event import Event
    from forge.api.offer import Offer
    from forge.discovery.catalogue import Catalogue
    from forge.disk.speeds import Timed
    from forge.machine.machine import Machine


LOG = "log.txt"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of measuring one backend: what its run took, or why there is nothing."""

    plugin: str
    timed: Timed | None
    why: str = ""


def measure(catalogue: Catalogue, machine: Machine, begin: Callable[[str], None]) -> Iterator[Measured]:
    """Train the trial of each backend that brings one.

    Args:
        catalogue: The plugins.
        machine: This machine.
        begin: Called with a plugin's name before its turn, which can take minutes.
    """
    for name, offer in _backends(catalogue).items():
        begin(name)
        try:
            with scratch("measure", keep=LOG) as folder:
                yield Measured(name, _trained(offer, folder, catalogue, machine, name))
        except Interrupted:
            raise
        except ForgeError as error:
            yield Measured(name, None, str(error))


def _backends(catalogue: Catalogue) -> dict[str, Offer]:
    found: dict[str, Offer] = {}
    for plugin, offer in catalogue.offers(Stage.LOAD):
        if offer.trial and offer.backend:
            found.setdefault(plugin.name, offer)
    return found


def _trained(offer: Offer, folder: Path, catalogue: Catalogue, machine: Machine, name: str) -> Timed:
    """Train an offer's trial in a folder and return what it took."""
    if why := private(speeds.table().parent):  # before it takes minutes
        raise ForgeError("what it took could not be kept", why)
    write = cast("Callable[[Path, Machine], None]", load_object(offer.trial or ""))
    write(folder / "job", machine)
    changes = [Change("use.backend", offer.backend)]
    file = read(folder / "job" / "job.toml", PluginKeys(catalogue), changes)
    run(file, catalogue, machine, folder / "runs", _unseen)
    mine = [each for each in speeds.read(machine).runs if each.backend == name]
    if not mine:
        raise ForgeError("its run is not in the table", speeds.read(machine).fault or None)
    return mine[0]


def _unseen(event: Event) -> None:
    """Show nothing of a run whose times alone are wanted."""
