"""The observers that act on a run: those of plugins that the job names in ``[use] with``, or whose table it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from forge.discovery.keys import config_models
from forge.discovery.requirements import missing_requirement
from forge.errors import PlanError
from forge.job.table import judged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from forge.api.offer import Extension
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.machine.machine import Machine


class Acting(NamedTuple):
    """An observer that acts, and its plugin."""

    plugin: Plugin
    extension: Extension


def acting(job: Job, catalogue: Catalogue, machine: Machine) -> list[Acting]:
    """Return the observers that act on a run. Raises :class:`PlanError` for one that the job names and cannot have."""
    found: list[Acting] = []
    for name in _named(job):
        plugin = catalogue.find(name)
        if plugin is None or plugin.status != "ok" or (name in job.use.with_ and not plugin.extensions):
            if name in job.use.with_:
                why = "it is not installed" if plugin is None else plugin.reason or "it has no observer"
                raise PlanError(f'[use] with = ["{name}"] cannot be followed', why)
            continue
        for extension in plugin.extensions:
            if missing := missing_requirement(extension.requires_dist, machine):
                raise PlanError(f"plugin {name} cannot act on this run", str(missing))
            found.append(Acting(plugin, extension))
    return list({(each.plugin.name, each.extension.impl): each for each in found}.values())


def _named(job: Job) -> list[str]:
    """Return the plugins whose observers a job asks for: by name, by their table, or by their file."""
    return list(dict.fromkeys([*job.use.with_, *job.plugins, *(Path(text).stem for text in job.use.plugins)]))


def still_acting(job: Job, catalogue: Catalogue, machine: Machine) -> tuple[list[Acting], list[str]]:
    """Return the observers that can act on what is done with trained weights, and a sentence for each that cannot.

    A run can be exported and evaluated where its observers are not installed.
    """
    found: list[Acting] = []
    lacking: list[str] = []
    for name in _named(job):
        mine = [text for text in job.use.plugins if Path(text).stem == name]
        use = job.use.model_copy(update={"with_": [name] if name in job.use.with_ else [], "plugins": mine})
        alone = {key: value for key, value in job.plugins.items() if key == name}
        try:
            found += acting(job.model_copy(update={"use": use, "plugins": alone}), catalogue, machine)
        except PlanError as error:
            lacking.append(f"the observer {name} does not act here: {error.why}")
    return found, lacking


def configs(job: Job, plugins: Iterable[Plugin]) -> dict[str, dict[str, Any]]:
    """Return the own tables of the plugins that take part: what the job says, and else the defaults.

    Raises:
        PlanError: A table has a key without a default, and the job has no such table.
    """
    found: dict[str, dict[str, Any]] = {}
    for plugin in {each.name: each for each in plugins}.values():
        if plugin.name in job.plugins:
            found[plugin.name] = job.plugins[plugin.name]
            continue
        for model in config_models(plugin):
            try:
                found.setdefault(plugin.name, {}).update(judged(model, {}).model_dump(mode="json"))
            except ValidationError as error:
                missing = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
                raise PlanError(
                    f"plugin {plugin.name} takes part, and the job does not say how",
                    f"its table has no default for {missing}",
                    f"add [plugins.{plugin.name}] with {missing}",
                ) from error
    return found


def named_functions(job: Job, functions: Mapping[str, str]) -> dict[str, str]:
    """Return those of the plugins' functions that a job names: as a value, or before the colon of a path."""
    if not functions:
        return {}
    texts = {name for text in _texts(job.tables()) for name in (text, text.partition(":")[0])}
    return {name: impl for name, impl in functions.items() if name in texts}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
