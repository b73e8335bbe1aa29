"""Asking the plugins what a model is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from forge.discovery.guard import import_guard
from forge.errors import ForgeError, ModelError, PluginError, no_text
from forge.masking import masked
from forge.model.facts import ModelFacts

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue


def describe_model(catalogue: Catalogue, id: str, revision: str | None, folder: Path) -> ModelFacts:  # noqa: A002
    """Return what the first plugin that knows a model says of it; forge's own are asked first.

    A plugin of somebody else's is asked about what forge's own do not know or refuse, so that installing one changes
    nothing about models that they know.

    Args:
        catalogue: The plugins.
        id: The job's ``[model] id``.
        revision: The job's ``[model] revision``.
        folder: Where relative paths start.

    Raises:
        ModelError: The model is missing, gated, incomplete or damaged, as the first plugin that refused it says.
        PluginError: A plugin failed at it.
    """
    refusal: ModelError | None = None
    unknown: ModelFacts | None = None
    for plugin in sorted(catalogue.usable, key=lambda plugin: not plugin.own):
        if plugin.describe is None:
            continue
        try:
            with import_guard():
                facts = plugin.describe(id, revision, folder)
        except ModelError as error:
            refusal = refusal or error
            continue
        except ForgeError:
            raise
        except Exception as error:
            what = f"plugin {plugin.name} ({plugin.distribution} {plugin.version}) failed at describing {id}"
            why, do = (
                f"{type(error).__name__}: {error}",
                f"update it, or go on without it: FORGE_PLUGINS=-{plugin.name}",
            )
            raise PluginError(what, why, do) from error
        if facts is None:
            continue
        if not isinstance(facts, ModelFacts):
            what = f"plugin {plugin.name} ({plugin.distribution} {plugin.version}) failed at describing {id}"
            why = f"it returns {type(facts).__name__} where forge.api.ModelFacts is due"
            raise PluginError(what, why, f"update it, or go on without it: FORGE_PLUGINS=-{plugin.name}")
        if facts.path and (fault := no_text(facts.path)):
            raise ModelError(f"the folder {facts.path} cannot be used", fault, "rename it")
        facts = facts if facts.note is None else replace(facts, note=masked(facts.note))
        if facts.source != "unknown":
            return facts
        unknown = unknown or facts
    if refusal is not None:
        raise refusal
    note = "no installed plugin knows it; assumed text, not verified"
    return unknown or ModelFacts(id=id, source="unknown", note=note)
