"""The plugin `bundle`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, Stage, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it makes exports of the format `bundle/tar`."""
    yield Offer(
        stage=Stage.EXPORT,
        impl="forge_bundle.export:export",
        serves=frozenset({"bundle/tar"}),
        supports=frozenset({"push"}),
        options="forge_bundle.options:Options",
        preflight="forge_bundle.preflight:preflight",
        upload="forge_bundle.upload:upload",
    )
