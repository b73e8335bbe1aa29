"""The JSON Schema of job files: the core's tables, with the keys of the installed plugins put where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Stage
from forge.job import Job
from forge.keys import config_models, names, option_models

if TYPE_CHECKING:
    from pydantic import BaseModel

    from forge.discovery import Catalogue


def job_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema for the installed plugins.

    Where several methods, types or formats add keys to one table, each is allowed; ``forge plan`` is stricter.
    """
    schema = Job.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "forge job"
    definitions = schema["$defs"]
    schema["properties"].pop("folder", None)
    places = (("AdapterTable", Stage.ADAPT), ("TrainTable", Stage.TRAIN), ("ExportTable", Stage.EXPORT))
    for name, stage in places:
        table = definitions[name]
        table["properties"].pop("options", None)
        for word in sorted(names(catalogue, stage)):
            for _, model in option_models(catalogue, stage, word):
                _merge(table, definitions, model)
    plugins: dict[str, Any] = {}
    for plugin in catalogue.usable:
        for model in config_models(plugin):
            described = model.model_json_schema(by_alias=True)
            definitions |= described.pop("$defs", {})
            plugins[plugin.name] = described
    schema["properties"]["plugins"] = {
        "description": "Tables that plugins own.",
        "type": "object",
        "properties": plugins,
        "additionalProperties": False,
    }
    return schema


def _merge(table: dict[str, Any], definitions: dict[str, Any], model: type[BaseModel]) -> None:
    described = model.model_json_schema(by_alias=True)
    definitions |= described.get("$defs", {})
    for key, value in described["properties"].items():
        table["properties"].setdefault(key, value)
