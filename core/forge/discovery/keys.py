"""Which keys and words the installed plugins add to a job: the answers to :mod:`forge.job.keys`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.guard import import_guard
from forge.errors import PluginError
from forge.job.keys import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Catalogue, Plugin

STAGES: Mapping[str, Stage] = {"adapter": Stage.ADAPT, "train": Stage.TRAIN, "export": Stage.EXPORT}
"""The stages whose offers add keys to a table."""


@dataclass(frozen=True, slots=True)
class PluginKeys:
    """The keys that the plugins of a catalogue add; a :class:`forge.job.keys.Keys`."""

    catalogue: Catalogue

    def words(self, table: str) -> frozenset[str]:
        """Return the methods, types or formats that the usable plugins serve."""
        offers = self.catalogue.offers(STAGES[table])
        return frozenset(word for _, offer in offers for word in offer.serves)

    def models(self, table: str, word: str) -> list[type[BaseModel]]:
        """Return the models of the keys that offers for a word add to a table."""
        found: dict[str, type[BaseModel]] = {}
        for plugin, offer in self.catalogue.offers(STAGES[table]):
            if word in offer.serves and offer.options and offer.options not in found:
                found[offer.options] = model_of(plugin, offer.options, word)
        return list(found.values())

    def plugins(self) -> list[str]:
        """Return the names of all plugins, usable or not."""
        return [plugin.name for plugin in self.catalogue.plugins]

    def settings(self, plugin: str) -> Settings | None:
        """Return the models of ``[plugins.<name>]``, or why the plugin cannot be used; None if there is none."""
        found = self.catalogue.find(plugin)
        if found is None:
            return None
        return Settings(tuple(config_models(found))) if found.status == "ok" else Settings(fault=found.reason)


def model_of(plugin: Plugin, reference: str, *arguments: str) -> type[BaseModel]:
    """Import a pydantic model that a plugin names, directly or as a function of ``arguments`` that returns it."""
    try:
        with import_guard():
            found = load_object(reference)
            if callable(found) and not isinstance(found, type):
                found = found(*arguments)
    except Exception as error:
        what = f"plugin {plugin.name} ({plugin.distribution} {plugin.version}) names {reference}, which cannot be used"
        why, do = f"{type(error).__name__}: {error}", f"update it, or go on without it: FORGE_PLUGINS=-{plugin.name}"
        raise PluginError(what, why, do) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise PluginError(f"plugin {plugin.name} names {reference}, which is no pydantic model")
    return found


def config_models(plugin: Plugin) -> list[type[BaseModel]]:
    """Return the models that own ``[plugins.<name>]`` of a plugin."""
    described: list[Offer | Any] = [*plugin.offers, *plugin.extensions]
    references = dict.fromkeys(item.config for item in described if item.config)
    return [model_of(plugin, reference) for reference in references]
