"""Finding plugins, without importing anything heavy and without letting one plugin break another.

pluggy's own entry-point loader stops at the first plugin that raises and has no say in what a plugin imports. forge
needs both: a broken plugin is listed with its reason while the others work, and a plugin that imports torch while it is
discovered is refused by name, because Unsloth must come before torch and ``forge plan`` must stay fast.

forge's own plugins are imported here. Those of others are asked in another process, once for each version of their
files, and called there: what they do to it harms nobody.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from forge.api.code import know_code
from forge.api.functions import know
from forge.api.hooks import API
from forge.api.reference import load_object
from forge.discovery.calls import line_of
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.faults import LONGEST, name_fault
from forge.discovery.guard import NoAnswer
from forge.discovery.installed import installed, of_code, of_points
from forge.discovery.loading import load
from forge.discovery.told import Told
from forge.errors import ForgeError
from forge.masking import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from forge.api.code import Code
    from forge.discovery.catalogue import Status
    from forge.discovery.installed import Found


def discover(
    environ: Mapping[str, str] = os.environ,
    found: Iterable[EntryPoint] | None = None,
    *,
    again: bool = False,
    apart: bool = True,
    code: Sequence[Code] = (),
) -> Catalogue:
    """Find the plugins that are installed.

    Args:
        environ: ``FORGE_PLUGINS`` is read from it: ``a,b`` loads only these, ``-a,-b`` all but these, and nothing at
            all only forge's own.
        found: Entry points to look at instead of the installed ones.
        again: Whether to ask plugins of others that have been asked before and have not changed.
        code: Plugins that are files beside a job.
        apart: Whether those are asked in a process of their own; their authors' tests want them in this one.
    """
    know_code(code)
    candidates = sorted(
        [*(installed() if found is None else of_points(found)), *map(of_code, code)],
        key=lambda each: (each.point.name, each.point.group, each.source),
    )
    wanted = _wanted(environ.get("FORGE_PLUGINS"))
    twice: dict[str, set[tuple[tuple[str, str], str]]] = {}
    for each in candidates:
        if each.point.group == API:
            twice.setdefault(each.point.name, set()).add((each.source, each.point.value))
    own = {_plain(each.point.name) for each in candidates if each.point.group == API and each.source[0] == OWN}
    plugins, seen = [], set()
    strangers: dict[int, Found] = {}
    for each in candidates:
        point = each.point
        key = (point.name, point.group, each.source, point.value)
        if key in seen:  # one distribution can be on the path twice, as an editable install beside its sources
            continue
        seen.add(key)
        if point.group != API:
            plugins.append(_unusable(each, "other API", f"speaks {point.group}, this forge speaks {API}"))
        elif not wanted(each):
            plugins.append(_unusable(each, "disabled", "switched off by FORGE_PLUGINS"))
        elif each.source[0] != OWN and _plain(point.name) in own:
            reason = f"{_plain(point.name)} is a plugin of forge's own; it needs another name"
            plugins.append(_unusable(each, "duplicate", reason))
        elif len(same := {key for key in twice[point.name] if (key[0][0] == OWN) is (each.source[0] == OWN)}) > 1:
            names = " and ".join(sorted(f"{name} {version}" for (name, version), _ in same))
            plugins.append(_unusable(each, "duplicate", f"two plugins have this name: {names}; uninstall one"))
        elif fault := each.fault or name_fault(point.name):
            plugins.append(_unusable(each, "broken", fault))
        elif each.source[0] != OWN and (unmet := _unmet(each)):
            plugins.append(_unusable(each, "other forge", unmet))
        elif apart and each.source[0] != OWN:
            strangers[len(plugins)] = each
            plugins.append(_unusable(each, "broken", "it was not asked"))
        else:
            plugins.append(_plugin(each, load(point), load_object))
    if strangers:
        asked = _Asked(again=again)
        for place, told in zip(strangers, asked.told(list(strangers.values())), strict=True):
            plugins[place] = _plugin(strangers[place], told, partial(asked.function, strangers[place], -1))
    missed = _named(environ.get("FORGE_PLUGINS", "")) - {each.point.name for each in candidates}
    catalogue = Catalogue(tuple(_without_twins(plugins)), tuple(sorted(missed)))
    know(catalogue.functions)
    return catalogue


class _Asked:
    """What plugins of others say of themselves: remembered, or asked now.

    Args:
        again: Whether to ask also those that are remembered.
    """

    def __init__(self, *, again: bool) -> None:
        from forge.discovery.remembered import Memory  # who has no plugins of others does not pay for them
        from forge.discovery.strangers import Strangers

        self.again, self.process, self.memory = again, Strangers(), Memory()

    def function(self, found: Found, index: int, name: str) -> Callable[..., Any]:
        """Return what calls a function of a plugin in the other process."""
        from forge.discovery.strangers import Remote

        return Remote(self.process, found, index, name)

    def told(self, every: Sequence[Found]) -> list[Told]:
        """Return what plugins say of themselves, and remember it."""
        known = [None if self.again else self._remembered(found) for found in every]
        if None not in known:
            return [told for told in known if told is not None]
        from forge.discovery.crowds import ask_each

        pending = [found for found, told in zip(every, known, strict=True) if told is None]
        answers = iter(ask_each(pending, "it is asked what it can do", {"do": "describe"}))
        told = [
            self._kept(found, next(answers)) if told is None else told for found, told in zip(every, known, strict=True)
        ]
        self.memory.write()
        return told

    def _remembered(self, found: Found) -> Told | None:
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # damaged
            data = self.memory.recall(found)
            return None if data is None else self._rebuilt(found, data)
        return None

    def _kept(self, found: Found, answer: Mapping[str, Any] | NoAnswer | ForgeError) -> Told:
        files: Iterable[str] | None = None
        if isinstance(answer, Exception):
            data = Told(f"{answer}; `forge plugins --again` asks it once more").to_json()
        else:
            data, files = answer["told"], answer["files"]
        self.memory.keep(found, data, files)
        return self._rebuilt(found, data)

    def _rebuilt(self, found: Found, data: Mapping[str, Any]) -> Told:
        return Told.from_json(data, partial(self.function, found))


def _plugin(found: Found, told: Told, named: Callable[[str], Any]) -> Plugin:
    """Return a plugin that was asked what it can do."""
    if told.reason:
        return _unusable(found, "broken", told.reason)
    distribution, version = found.source
    return Plugin(
        name=found.point.name,
        distribution=distribution,
        version=version,
        offers=told.offers,
        extensions=told.extensions,
        functions=told.functions,
        commands=told.commands,
        targets=told.targets,
        checks=told.checks,
        describe=told.describe,
        code=found.code,
        deprecated=told.deprecated,
        named=named,
    )


def _unmet(found: Found) -> str | None:
    """Return why this forge is not one that a plugin works with, or None; of its metadata, nothing is imported."""
    if not found.needs:
        return None
    from forge.discovery.requirements import unmet_forge  # who has no plugins of others does not pay for it

    return unmet_forge(found.needs, found.source[0])


def _without_twins(plugins: Sequence[Plugin]) -> list[Plugin]:
    """Refuse a plugin that brings what another does by that name; forge's own, then the first by name, keep theirs."""
    homes: dict[str, str] = {}
    for plugin in sorted(plugins, key=lambda plugin: not plugin.own):
        for brought in _brought(plugin):
            homes.setdefault(brought, plugin.name)
    found = []
    for plugin in plugins:
        twin = next((brought for brought in _brought(plugin) if homes[brought] != plugin.name), None)
        if twin:
            reason = f"brings the {twin}, as plugin {homes[twin]} does; use one of the two"
            names = ("offers", "extensions", "functions", "commands", "targets", "checks")
            left: dict[str, Any] = dict.fromkeys(names, ())
            found.append(replace(plugin, status="broken", reason=reason, describe=None, **left))
        else:
            found.append(plugin)
    return found


def _brought(plugin: Plugin) -> list[str]:
    """Return what a plugin brings that has a name for all."""
    commands = [f"command {command.name}" for command in plugin.commands]
    return [*commands, *(f"target {target.name}" for target in plugin.targets)]


def _unusable(found: Found, status: Status, reason: str) -> Plugin:
    distribution, version = found.source
    name = found.point.name if len(found.point.name) <= LONGEST else f"{found.point.name[: LONGEST - 1]}…"
    line = line_of(masked(reason))
    return Plugin(name=name, distribution=distribution, version=version, status=status, reason=line)


def _plain(name: str) -> str:
    """Return a name without what people do not tell names apart by: capitals, and which sign joins its parts."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _named(variable: str) -> set[str]:
    """Return the plugins that ``FORGE_PLUGINS`` names, to be there or not."""
    return {part.strip().removeprefix("-") for part in variable.split(",") if part.strip()}


def _wanted(variable: str | None) -> Callable[[Found], bool]:
    if variable is None:
        return lambda _found: True
    if not variable.strip():
        return lambda found: found.source[0] == OWN
    names = {part.strip() for part in variable.split(",") if part.strip()}
    without = {name[1:] for name in names if name.startswith("-")}
    only = {name for name in names if not name.startswith("-")}
    return lambda found: found.point.name not in without and (found.point.name in only or not only)
