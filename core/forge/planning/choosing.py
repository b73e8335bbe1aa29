"""Choosing for a job: what its method asks of other stages, and whose keys it was read by, depend on the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api.stage import Stage
from forge.discovery.keys import PluginKeys, word_of
from forge.errors import PlanError
from forge.job.decisions import settle
from forge.job.read import again
from forge.planning.needs import asks, needs
from forge.planning.selection import select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api.plan import Verdict
    from forge.discovery.catalogue import Catalogue
    from forge.job.decisions import Decision
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.planning.fitting import Choice
    from forge.planning.needs import Need

_ROUNDS = 4
"""How often a choice may change what it was made by; two are enough unless plugins send each other round."""


def choose(
    file: JobFile,
    stages: Sequence[Stage],
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    excluded: Mapping[str, str] | None,
    *,
    every: bool,
    launch: Sequence[Decision] = (),
) -> tuple[JobFile, list[Choice], list[Verdict]]:
    """Choose, until the choice agrees with what it was made by: the method's wishes, and the keys of the job.

    What trains asks for a layout of the rows, and what serves a table brings its keys; which offer that is, the choice
    alone can say. So a choice that another one was expected of is made again, by its own wishes and keys. Over how many
    processes the training is spread, ``launch`` says.
    """
    asked = asks(settle(file.job, launch), facts, catalogue, machine)
    for _ in range(_ROUNDS):
        job = settle(file.job, launch)
        wanted = needs(job, facts, stages, asked)

        def foreign(choice: Choice, file: JobFile = file, wanted: Sequence[Need] = wanted) -> str | None:
            place = _table(choice.need, wanted)
            written = file.written.get(place) if place else None
            if place is None or written is None:
                return None
            return PluginKeys(catalogue).refused(choice.plugin, place, word_of(file.job, place), written)

        chosen, verdicts = select(
            wanted, catalogue, machine, job, facts, excluded=excluded, every=every, foreign=foreign
        )
        trains = next((choice.offer for choice in chosen if choice.need.stage is Stage.TRAIN), None)
        owners = {table: choice.plugin.name for choice in chosen if (table := _table(choice.need, wanted))}
        right = trains is None or dict(trains.asks) == dict(asked)
        keys = PluginKeys(catalogue, machine, file.owners)
        misread = file.owners != owners and keys.misread(owners, file.job, file.written)
        if right and not misread:
            return file, chosen, verdicts
        asked = asked if trains is None else trains.asks
        file = again(file, keys.of(owners), owners) if misread else file
    what, why = "the stages do not fit together", "what they ask of each other never comes to an end"
    raise PlanError(what, why, "name plugins in [use]")


def _table(need: Need, wanted: Sequence[Need]) -> str | None:
    """Return the table of a job whose keys what serves a need brings, as ``export.0``."""
    exports = [each for each in wanted if each.stage is Stage.EXPORT]
    tables = {Stage.ADAPT: "adapter", Stage.TRAIN: "train"}
    return f"export.{exports.index(need)}" if need.stage is Stage.EXPORT else tables.get(need.stage)
