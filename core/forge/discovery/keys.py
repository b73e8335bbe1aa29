"""Which keys and words the installed plugins add to a job: the answers to :mod:`forge.job.keys`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.calls import call
from forge.discovery.guard import import_guard
from forge.discovery.ranking import rank, unsuited
from forge.job.keys import SELECTORS, Settings
from forge.job.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.machine.machine import Machine

STAGES: Mapping[str, Stage] = {"adapter": Stage.ADAPT, "train": Stage.TRAIN, "export": Stage.EXPORT}
"""The stages whose offers add keys to a table."""


@dataclass(frozen=True, slots=True)
class PluginKeys:
    """The keys that the plugins of a catalogue add; a :class:`forge.job.keys.Keys`.

    Only the plugin that is to serve a table adds keys to it: another one that serves the same word has no say in it.

    Attributes:
        catalogue: The plugins.
        machine: The machine that they are to serve on, if it is known.
        owners: Which plugin serves which table, where that is settled.
    """

    catalogue: Catalogue
    machine: Machine | None = None
    owners: Mapping[str, str] = field(default_factory=dict)

    def words(self, table: str, plugin: str | None = None) -> frozenset[str]:
        """Return the methods, types or formats that the usable plugins serve, or that one of them does."""
        offers = self.catalogue.offers(STAGES[table])
        return frozenset(word for each, offer in offers for word in offer.serves if plugin in {None, each.name})

    def models(self, place: str, word: str, use: Mapping[str, Any]) -> list[type[BaseModel]]:
        """Return the models of the keys that the plugin that is to serve a word adds to a table."""
        owner = self._owner(place, word, use)
        references = self.references(place, word, owner.name) if owner else ()
        return [model_of(owner, reference, word) for reference in references] if owner else []

    def references(self, place: str, word: str, plugin: str) -> tuple[str, ...]:
        """Return what a plugin names as the models of its keys for a word of a table."""
        found = self.catalogue.find(plugin)
        offers = found.offers if found else ()
        mine = (offer for offer in offers if offer.stage is _stage(place) and word in offer.serves)
        return tuple(dict.fromkeys(offer.options for offer in mine if offer.options))

    def others(self, place: str, word: str, use: Mapping[str, Any]) -> list[str]:
        """Return the other plugins that serve a word of a table and add keys to it, without asking them."""
        owner = self._owner(place, word, use)
        names = dict.fromkeys(
            plugin.name for plugin, offer in self.catalogue.offers(_stage(place)) if word in offer.serves
        )
        mine = self.references(place, word, owner.name) if owner else ()
        return [name for name in names if (theirs := self.references(place, word, name)) and theirs != mine]

    def of(self, owners: Mapping[str, str]) -> PluginKeys:
        """Return the same where it is known which plugins serve."""
        return replace(self, owners=owners)

    def misread(self, owners: Mapping[str, str], job: Job) -> bool:
        """Tell whether a job was read by other keys than those of the plugins that serve its tables."""
        use = job.use.model_dump(by_alias=True)
        for place, name in owners.items():
            word = word_of(job, place)
            expected = self._owner(place, word, use)
            if expected is None or self.references(place, word, name) != self.references(place, word, expected.name):
                return True
        return False

    def _owner(self, place: str, word: str, use: Mapping[str, Any]) -> Plugin | None:
        """Return the plugin that is to serve a word of a table: the settled one, or the likeliest."""
        known = self.owners.get(place)
        if known and word in self.words(place.partition(".")[0], known):
            return self.catalogue.find(known)
        stage = _stage(place)
        named, backend = use.get(stage.value), use.get("backend", "auto") if stage is Stage.ADAPT else "auto"
        prefer = (
            [name for name in use.get("prefer", ()) if isinstance(name, str)]
            if isinstance(use.get("prefer"), list)
            else []
        )
        able = [(plugin, offer) for plugin, offer in self.catalogue.offers(stage) if word in offer.serves]
        told = [
            (plugin, offer)
            for plugin, offer in able
            if (named == plugin.name if named else backend in {"auto", offer.backend})
        ]
        ranked = [
            (
                self.machine is not None and unsuited(offer, self.machine) is not None,
                rank(plugin, offer, prefer),
                plugin,
            )
            for plugin, offer in told or able  # the plan says what is wrong with a plugin that the job names
        ]
        return min(ranked, key=lambda each: each[:2])[2] if ranked else None

    def plugins(self) -> list[str]:
        """Return the names of all plugins, usable or not."""
        return [plugin.name for plugin in self.catalogue.plugins]

    def settings(self, plugin: str) -> Settings | None:
        """Return the models of ``[plugins.<name>]``, or why the plugin cannot be used; None if there is none."""
        found = self.catalogue.find(plugin)
        if found is None:
            return None
        if found.status != "ok":
            return Settings(fault=f"it is {found.status}: {found.reason}")
        return Settings(tuple(config_models(found)))


def word_of(job: Job, place: str) -> str:
    """Return the word that a job's table asks for: its method, type or format."""
    name, _, index = place.partition(".")
    table = job.export[int(index)] if index else getattr(job, name)
    word: str = getattr(table, SELECTORS[name])
    return word


def _stage(place: str) -> Stage:
    return STAGES[place.partition(".")[0]]


def model_of(plugin: Plugin, reference: str, *arguments: str) -> type[BaseModel]:
    """Import a pydantic model that a plugin names, directly or as a function of ``arguments`` that returns it."""
    return call(plugin, f"its {reference}", checked_model, reference, *arguments)


def checked_model(reference: str, *arguments: str) -> type[BaseModel]:
    """Return the model that a reference names. Raises whatever its module does, and TypeError if it is none."""
    with import_guard():
        found = load_object(reference)
        if callable(found) and not isinstance(found, type):
            found = found(*arguments)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise TypeError("it is no pydantic model")
    return found


def options_fault(stage: Stage, model: type[BaseModel]) -> str | None:
    """Return what is wrong with the keys that a plugin adds to its stage's table, or None."""
    table = next(name for name, its in STAGES.items() if its is stage)
    if taken := sorted(model.model_fields.keys() & TABLES[table].model_fields.keys()):
        return f"adds the key {taken[0]} to [{table}], which is one of forge's own there"
    return None


def config_models(plugin: Plugin) -> list[type[BaseModel]]:
    """Return the models that own ``[plugins.<name>]`` of a plugin."""
    described: list[Offer | Any] = [*plugin.offers, *plugin.extensions]
    references = dict.fromkeys(item.config for item in described if item.config)
    return [model_of(plugin, reference) for reference in references]
