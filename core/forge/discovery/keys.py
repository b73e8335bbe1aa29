"""Which keys and words the installed plugins add to a job: the answers to :mod:`forge.job.keys`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.calls import call
from forge.discovery.guard import import_guard
from forge.discovery.ranking import rank, unsuited
from forge.errors import ForgeError
from forge.job.keys import SELECTORS, Settings, keys_of
from forge.job.table import judged
from forge.job.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.job.keys import Written
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

    def models(
        self, place: str, word: str, use: Mapping[str, Any], written: Written | None = None
    ) -> list[type[BaseModel]]:
        """Return the models of the keys that the plugin that is to serve a word adds to a table."""
        owner = self._owner(place, word, use, written)
        return self._models_of(owner, place, word) if owner else []

    def _models_of(self, plugin: Plugin, place: str, word: str) -> list[type[BaseModel]]:
        return [model_of(plugin, reference, word) for reference in self.references(place, word, plugin.name)]

    def refused(self, plugin: Plugin, place: str, word: str, written: Written) -> str | None:
        """Say what a plugin does not take of the keys that a job writes in a table, or None if it takes them all.

        Contradictions between keys are mistakes of the job, and no reason against a plugin.
        """
        table = place.partition(".")[0]
        try:
            models = self._models_of(plugin, place, word)
        except ForgeError as error:
            return error.why or error.what
        if strange := sorted(written.keys() - {name for model in models for name in model.model_fields}):
            return f"it has no key {strange[0]} for [{table}]"
        for model in models:
            mine = {name: value for name, value in written.items() if name in model.model_fields}
            try:
                judged(model, mine)
            except ForgeError as error:
                return error.why or error.what
            except ValidationError as error:
                from forge.job.explain import faults

                single = {each["loc"][0] for each in error.errors() if each["loc"]}
                found = (each for each in faults(model, mine, error, ()) if each.key and each.key[0] in single)
                if fault := next(found, None):
                    return f"[{table}] {fault.key[0]} {fault.message}"
        return None

    def references(self, place: str, word: str, plugin: str) -> tuple[str, ...]:
        """Return what a plugin names as the models of its keys for a word of a table."""
        found = self.catalogue.find(plugin)
        offers = found.offers if found else ()
        mine = (offer for offer in offers if offer.stage is _stage(place) and word in offer.serves)
        return tuple(dict.fromkeys(offer.options for offer in mine if offer.options))

    def others(self, place: str, word: str, use: Mapping[str, Any], written: Written | None = None) -> list[str]:
        """Return the other plugins that serve a word of a table and add keys to it, without asking them."""
        owner = self._owner(place, word, use, written)
        mine = self.references(place, word, owner.name) if owner else ()
        theirs: dict[str, dict[str, None]] = {}
        for plugin, offer in self.catalogue.offers(_stage(place)):
            if word in offer.serves and offer.options:
                theirs.setdefault(plugin.name, {})[offer.options] = None
        return [name for name, references in theirs.items() if tuple(references) != mine]

    def of(self, owners: Mapping[str, str]) -> PluginKeys:
        """Return the same where it is known which plugins serve."""
        return replace(self, owners=owners)

    def misread(self, owners: Mapping[str, str], job: Job, written: Mapping[str, Written]) -> bool:
        """Tell whether a job was read by other keys than those of the plugins that serve its tables."""
        use = job.use.model_dump(by_alias=True)
        for place, name in owners.items():
            word = word_of(job, place)
            expected = self._owner(place, word, use, written.get(place))
            if expected is None or self.references(place, word, name) != self.references(place, word, expected.name):
                return True
        return False

    def _owner(self, place: str, word: str, use: Mapping[str, Any], written: Written | None = None) -> Plugin | None:
        """Return the plugin that is to serve a word of a table: the settled one, or the likeliest.

        A plugin of others that goes before forge's own, by its priority or because it is preferred, is the likeliest
        only for a job whose keys it takes: the next one may know them, and a job has to run as it did before the plugin
        was installed.
        """
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
        order = [each[2] for each in sorted(ranked, key=lambda each: each[:2])]
        likely = (
            plugin
            for plugin in order
            if plugin.own or named or written is None or self.refused(plugin, place, word, written) is None
        )
        return next(likely, order[0] if order else None)

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


def default_fault(model: type[BaseModel]) -> str | None:
    """Return what is wrong with the defaults and the types of a model's keys, or None."""
    try:
        json.dumps(model.model_construct().model_dump(mode="json", warnings=False), allow_nan=False)
        model.model_json_schema()
    except Exception as error:  # noqa: BLE001 - a type of somebody's may raise anything
        why = " ".join(str(error).split())
        return f"the keys of {model.__qualname__} are not all JSON data with a schema: {type(error).__name__}: {why}"
    return None


def options_fault(stage: Stage, model: type[BaseModel]) -> str | None:
    """Return what is wrong with the keys that a plugin adds to its stage's table, or None."""
    table = next(name for name, its in STAGES.items() if its is stage)
    if taken := sorted(keys_of(model).keys() & keys_of(TABLES[table]).keys()):
        return f"adds the key {taken[0]} to [{table}], which is one of forge's own there"
    return None


def config_models(plugin: Plugin) -> list[type[BaseModel]]:
    """Return the models that own ``[plugins.<name>]`` of a plugin."""
    described: list[Offer | Any] = [*plugin.offers, *plugin.extensions]
    references = dict.fromkeys(item.config for item in described if item.config)
    return [model_of(plugin, reference) for reference in references]
