"""Finding plugins, without importing anything heavy and without letting one plugin break another.

pluggy's own entry-point loader stops at the first plugin that raises and has no say in what a plugin imports. forge
needs both: a broken plugin is listed with its reason while the others work, and a plugin that imports torch while it is
discovered is refused by name, because Unsloth must come before torch and ``forge plan`` must stay fast.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, NamedTuple

import pluggy

from forge.api.command import Command
from forge.api.hooks import API, PlanHooks
from forge.api.offer import Extension, Offer
from forge.api.stage import ABILITIES, NAMES, Stage
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.guard import import_guard
from forge.masking import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from forge.discovery.catalogue import Status
    from forge.model.facts import ModelFacts


class _Found(NamedTuple):
    """An entry point, with the name and version of its distribution."""

    point: EntryPoint
    source: tuple[str, str]


def discover(environ: Mapping[str, str] = os.environ, found: Iterable[EntryPoint] | None = None) -> Catalogue:
    """Find the plugins that are installed.

    Args:
        environ: ``FORGE_PLUGINS`` is read from it: ``a,b`` loads only these, ``-a,-b`` all but these, and nothing at
            all only forge's own.
        found: Entry points to look at instead of the installed ones.
    """
    candidates = sorted(
        _from_sources(_installed() if found is None else found),
        key=lambda each: (each.point.name, each.point.group, each.source),
    )
    wanted = _wanted(environ.get("FORGE_PLUGINS"))
    twice: dict[str, set[tuple[tuple[str, str], str]]] = {}
    for each in candidates:
        if each.point.group == API:
            twice.setdefault(each.point.name, set()).add((each.source, each.point.value))
    plugins, seen = [], set()
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
        elif each.source[0] != OWN and any(source[0] == OWN for source, _ in twice[point.name]):
            plugins.append(
                _unusable(each, "duplicate", f"{point.name} is a plugin of forge's own; it needs another name")
            )
        elif len(same := {key for key in twice[point.name] if (key[0][0] == OWN) is (each.source[0] == OWN)}) > 1:
            names = " and ".join(sorted(f"{name} {version}" for (name, version), _ in same))
            plugins.append(_unusable(each, "duplicate", f"two plugins have this name: {names}; uninstall one"))
        else:
            plugins.append(_load(each))
    return Catalogue(tuple(_without_twins(plugins)))


def _without_twins(plugins: Sequence[Plugin]) -> list[Plugin]:
    """Refuse a plugin that brings a command of another's name; forge's own, and then the first by name, keep theirs."""
    homes: dict[str, str] = {}
    for plugin in sorted(plugins, key=lambda plugin: not plugin.own):
        for command in plugin.commands:
            homes.setdefault(command.name, plugin.name)
    found = []
    for plugin in plugins:
        twin = next((command.name for command in plugin.commands if homes[command.name] != plugin.name), None)
        if twin:
            reason = f"brings the command {twin}, as plugin {homes[twin]} does; use one of the two"
            found.append(
                replace(plugin, status="broken", reason=reason, offers=(), extensions=(), commands=(), describe=None)
            )
        else:
            found.append(plugin)
    return found


_LONGEST = 64
"""Letters of a plugin's name; it becomes part of messages, tables and names of files."""


def _installed() -> list[EntryPoint]:
    """Return the entry points of every version of the plugin API, without importing any."""
    every = entry_points()  # type: ignore[var-annotated,unused-ignore]  # its type differs between 3.11 and 3.12
    groups = [group for group in every.groups if re.fullmatch(r"forge_v\d+", group)]
    return [point for group in groups for point in every.select(group=group)]


def _from_sources(points: Iterable[EntryPoint]) -> Iterable[_Found]:
    """Yield entry points with their distributions, each of which reads and parses its metadata whenever it is asked."""
    read: dict[int, tuple[str, str]] = {}
    for point in points:
        if point.dist is None:
            yield _Found(point, ("unknown", "0"))
            continue
        if id(point.dist) not in read:
            read[id(point.dist)] = (point.dist.name, point.dist.version)
        yield _Found(point, read[id(point.dist)])


def _unusable(found: _Found, status: Status, reason: str) -> Plugin:
    distribution, version = found.source
    name = found.point.name if len(found.point.name) <= _LONGEST else f"{found.point.name[: _LONGEST - 1]}…"
    return Plugin(name=name, distribution=distribution, version=version, status=status, reason=masked(reason))


def _wanted(variable: str | None) -> Callable[[_Found], bool]:
    if variable is None:
        return lambda _found: True
    if not variable.strip():
        return lambda found: found.source[0] == OWN
    names = {part.strip() for part in variable.split(",") if part.strip()}
    without = {name[1:] for name in names if name.startswith("-")}
    only = {name for name in names if not name.startswith("-")}
    return lambda found: found.point.name not in without and (found.point.name in only or not only)


def _load(found: _Found) -> Plugin:
    """Import a plugin's module under the guard and collect what it offers."""
    point, (distribution, version) = found.point, found.source
    if len(point.name) > _LONGEST or not re.fullmatch(r"\w[\w.-]*", point.name):
        return _unusable(found, "broken", f"a plugin's name is of at most {_LONGEST} letters, digits, dashes and dots")
    manager = pluggy.PluginManager("forge")
    described: list[object] = []
    commands: list[object] = []
    with import_guard() as seen:
        try:
            manager.add_hookspecs(PlanHooks)
            manager.register(point.load(), name=point.name)
            manager.check_pending()
            described += (item for items in manager.hook.forge_offers() for item in items)
            commands += (item for items in manager.hook.forge_commands() for item in items)
            describes = bool(manager.hook.forge_describe.get_hookimpls())
            reason = _fault(point.name, described, commands, describes=describes)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's module raises is its own verdict
            reason = f"{type(error).__name__}: {error}"
    if seen:
        reason = f"imports {seen[0]} at discovery; import it inside the implementation"
    if reason:
        return _unusable(found, "broken", reason)
    return Plugin(
        name=point.name,
        distribution=distribution,
        version=version,
        offers=tuple(item for item in described if isinstance(item, Offer)),
        extensions=tuple(item for item in described if isinstance(item, Extension)),
        commands=tuple(item for item in commands if isinstance(item, Command)),
        describe=partial(_describe, manager) if manager.hook.forge_describe.get_hookimpls() else None,
    )


def _describe(manager: pluggy.PluginManager, id: str, revision: str | None, folder: Path) -> ModelFacts | None:  # noqa: A002
    answers: list[ModelFacts] = manager.hook.forge_describe(id=id, revision=revision, folder=folder)
    return answers[0] if answers else None


def _fault(plugin: str, described: Sequence[object], commands: Sequence[object], *, describes: bool) -> str | None:
    """Return what is wrong with what a plugin yields, or None."""
    if not described and not commands and not describes:
        return "offers nothing: its hooks forge_offers and forge_commands yield nothing and it has no forge_describe"
    for item in described:
        if not isinstance(item, Offer | Extension):
            return f"yields {type(item).__name__} where forge.api.Offer or Extension is due"
        if isinstance(item, Offer) and (fault := _offer_fault(plugin, item)):
            return fault
    for item in commands:
        if not isinstance(item, Command):
            return f"yields {type(item).__name__} where forge.api.Command is due"
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", item.name):
            return f"brings the command {item.name!r}; a name is of lower-case letters, digits and dashes"
        if not isinstance(item.impl, str) or not re.fullmatch(r"[\w.]+:\w+", item.impl):
            return f"brings the command {item.name} as {item.impl!r}; write package.module:name"
    return None


def _offer_fault(plugin: str, offer: Offer) -> str | None:
    if not isinstance(offer.stage, Stage):
        return f"offers the stage {offer.stage!r}; write a member of forge.api.Stage"
    if not isinstance(offer.priority, int):
        return f"offers {offer.stage} with the priority {offer.priority!r}; write a whole number"
    for name, words, known in (
        ("serves", offer.serves, NAMES.get(offer.stage, frozenset())),
        ("supports", offer.supports, ABILITIES[offer.stage]),
    ):
        if strange := sorted(word for word in words if word not in known and not word.startswith(f"{plugin}/")):
            other = "serves" if name == "supports" else "supports"
            if set(strange) <= (ABILITIES if name == "serves" else NAMES).get(offer.stage, frozenset()):
                return f"{name} {', '.join(strange)} at {offer.stage}; that belongs to {other}"
            there = ", ".join([*sorted(known), f"{plugin}/…"])
            return f"{name} {', '.join(strange)}, unknown for {offer.stage}; known: {there}"
    if offer.stage in NAMES and not offer.serves:
        return f"offers {offer.stage} and serves no word of it, so that no job could ask for it"
    return None
