"""Asking the plugins what a model is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from forge.discovery.calls import call, failed
from forge.errors import ModelError, PluginError, no_text
from forge.masking import masked
from forge.model.facts import ModelFacts

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue


def describe_model(catalogue: Catalogue, id: str, revision: str | None, folder: Path) -> ModelFacts:  # noqa: A002
    """Return what the first plugin that knows a model says of it; forge's own are asked first.

    A plugin of somebody else's is asked about what forge's own do not know or refuse, so that installing one changes
    nothing about models that they know. Where it fails at one, a note says so.

    Args:
        catalogue: The plugins.
        id: The job's ``[model] id``.
        revision: The job's ``[model] revision``.
        folder: Where relative paths start.

    Raises:
        ModelError: The model is missing, gated, incomplete or damaged, as the first plugin that refused it says.
        PluginError: One of forge's own failed at it.
    """
    refusal: ModelError | None = None
    failures: list[str] = []
    unknown: ModelFacts | None = None
    for plugin in sorted(catalogue.usable, key=lambda plugin: not plugin.own):
        if plugin.describe is None:
            continue
        what = f"its description of {id}"
        try:
            facts = call(plugin, what, plugin.describe, id, revision, folder)
            if facts is not None and not isinstance(facts, ModelFacts):
                raise failed(plugin, what, f"it returns {type(facts).__name__} where forge.api.ModelFacts is due")
        except ModelError as error:
            refusal = refusal or error
            continue
        except PluginError as error:
            if plugin.own:
                raise
            failures.append(f"{error.what}: {error.why}")
            continue
        if facts is None:
            continue
        if facts.path and (fault := no_text(facts.path)):
            raise ModelError(f"the folder {facts.path} cannot be used", fault, "rename it")
        facts = facts if facts.note is None else replace(facts, note=masked(facts.note))
        if facts.source != "unknown":
            return facts
        unknown = unknown or facts
    if refusal is not None:
        raise refusal
    note = "no installed plugin knows it; assumed text, not verified"
    found = unknown or ModelFacts(id=id, source="unknown", note=note)
    return replace(found, note="; ".join(filter(None, [found.note, *failures])))
