"""The plugin `sqlite`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it reads paths that begin with `sqlite/rows:`."""
    yield Function(
        name="sqlite/rows",
        impl="forge_sqlite.read:rows",
    )
