"""The JSON Schema of job files: the core's tables, with the keys of the installed plugins put where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.job.job import Job
from forge.job.keys import SELECTORS
from forge.job.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from forge.job.keys import Keys


def job_schema(keys: Keys, plugins: Sequence[str]) -> dict[str, Any]:
    """Return the schema of jobs with the plugins' keys.

    Args:
        keys: The keys that plugins add.
        plugins: The plugins whose keys it is to know.

    Where several methods, types or formats add keys to one table, each is allowed; ``forge plan`` is stricter.
    """
    schema = Job.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "forge job"
    definitions = schema["$defs"]
    schema["properties"].pop("folder", None)
    for name in SELECTORS:
        table = definitions[TABLES[name].__name__]
        table["additionalProperties"] = False  # the plugins' keys are named
        served = {plugin: keys.words(name, plugin) for plugin in plugins}
        for word in sorted(frozenset().union(*served.values())):
            for plugin in (each for each, words in served.items() if word in words):
                for model in keys.of({name: plugin}).models(name, word, {}):
                    _merge(table, definitions, model)
    tables: dict[str, Any] = {}
    for plugin in plugins:
        settings = keys.settings(plugin)
        for model in settings.models if settings else ():
            described = model.model_json_schema(by_alias=True)
            definitions |= described.pop("$defs", {})
            tables[plugin] = described
    schema["properties"]["plugins"] = {
        "description": "Tables that plugins own.",
        "type": "object",
        "properties": tables,
        "additionalProperties": False,
    }
    return schema


def _merge(table: dict[str, Any], definitions: dict[str, Any], model: type[BaseModel]) -> None:
    described = model.model_json_schema(by_alias=True)
    definitions |= described.get("$defs", {})
    for key, value in described["properties"].items():
        table["properties"].setdefault(key, value)
