"""Which keys a job may have: the core's tables, and the models that plugins add to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from forge.discovery import Catalogue, import_guard, resolve
from forge.errors import PluginError
from forge.job import (
    AdapterTable,
    DataTable,
    EvalTable,
    ExportTable,
    GenerationTable,
    ModelTable,
    TrainTable,
    UseTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forge.api import Offer, Stage
    from forge.discovery import Plugin

TABLES: Mapping[str, type[BaseModel]] = {
    "model": ModelTable,
    "adapter": AdapterTable,
    "data": DataTable,
    "train": TrainTable,
    "eval": EvalTable,
    "generation": GenerationTable,
    "export": ExportTable,
    "use": UseTable,
}


ABILITIES = frozenset({"text", "vision", "seq2seq", "dora", "push", "streaming", "packing"})
"""Words of offers that say what else they can do; the others are methods, types and formats, which a job names."""


def names(catalogue: Catalogue, stage: Stage) -> set[str]:
    """Return the methods, types or formats that the usable plugins serve."""
    return {word for _, offer in catalogue.offers(stage) for word in offer.supports} - ABILITIES


def option_models(catalogue: Catalogue, stage: Stage, word: str) -> Iterator[tuple[Plugin, type[BaseModel]]]:
    """Yield the models of the keys that offers for ``word`` (a method, type or format) add to their stage's table."""
    done = set()
    for plugin, offer in catalogue.offers(stage):
        if word in offer.supports and offer.options and offer.options not in done:
            done.add(offer.options)
            yield plugin, model_of(plugin, offer.options, word)


def model_of(plugin: Plugin, reference: str, *arguments: str) -> type[BaseModel]:
    """Import a pydantic model that a plugin names, directly or as a function of ``arguments`` that returns it."""
    try:
        with import_guard():
            found = resolve(reference)
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
