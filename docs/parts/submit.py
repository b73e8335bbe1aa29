"""The options of the places where jobs are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api.reference import load_object
from forge.discovery.discover import discover
from parts.api import keys

if TYPE_CHECKING:
    from pydantic import BaseModel


def options(target: str) -> str:
    """The options of a target: of ``[submit.<target>]`` and ``--option``."""
    found = discover({"FORGE_PLUGINS": ""}).target(target)
    assert found is not None
    model: type[BaseModel] = load_object(found[1].impl).keys
    return keys(model)
