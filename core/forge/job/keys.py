"""What reading a job asks about plugins: which words they serve, and which keys they add.

The caller brings the answers (:class:`forge.discovery.keys.PluginKeys` has them from the catalogue), so a job can be
read, and tested, without a plugin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pydantic import BaseModel

SELECTORS: Mapping[str, str] = {"adapter": "type", "train": "method", "export": "format"}
"""The tables that plugins add keys to, and the key of each whose word decides which."""


Written = Mapping[str, Any]
"""Keys of one table that are not the core's, and their values, as the user wrote them."""


def keys_of(table: type[BaseModel]) -> dict[str, str]:
    """Return the keys of a table as a file has them, each with its name here: ``from`` is no name in Python."""
    return {field.alias or name: name for name, field in table.model_fields.items()}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is known of a plugin's own table, ``[plugins.<name>]``.

    Attributes:
        models: The models that own it; none if the plugin has no settings.
        fault: Why the plugin cannot be used, or None.
    """

    models: tuple[type[BaseModel], ...] = ()
    fault: str | None = None


class Keys(Protocol):
    """The keys that plugins add to a job."""

    def words(self, table: str, plugin: str | None = None) -> frozenset[str]:
        """Return the words that a table's selector may have: methods, types or formats; or those that one serves."""
        ...

    def models(
        self, place: str, word: str, use: Mapping[str, Any], written: Written | None = None
    ) -> Sequence[type[BaseModel]]:
        """Return the models of the keys that a plugin adds to a table for a word: the one that is to serve it.

        Args:
            place: The table, as ``"train"`` or ``"export.0"``.
            word: Its method, type or format.
            use: The job's table ``[use]``, as it was read.
            written: What the job has in the table beside the core's keys: who does not take it may not serve.
        """
        ...

    def others(self, place: str, word: str, use: Mapping[str, Any], written: Written | None = None) -> Sequence[str]:
        """Return the other plugins that serve a word of a table and add keys to it."""
        ...

    def of(self, owners: Mapping[str, str]) -> Keys:
        """Return the same where it is known which plugins serve: ``{"train": "mlx"}``."""
        ...

    def plugins(self) -> Sequence[str]:
        """Return the names of all plugins, usable or not."""
        ...

    def settings(self, plugin: str) -> Settings | None:
        """Return what is known of a plugin's own table; None if there is no such plugin."""
        ...
