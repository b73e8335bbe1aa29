"""Finding plugins, without importing anything heavy and without letting one plugin break another.

pluggy's own entry-point loader stops at the first plugin that raises and has no say in what a plugin imports. forge
needs both: a broken plugin is listed with its reason while the others work, and a plugin that imports torch while it is
discovered is refused by name, because Unsloth must come before torch and ``forge plan`` must stay fast.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal

import pluggy

from forge.api import API, VOCABULARY, Discovery, Extension, Offer, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

HEAVY = frozenset({"accelerate", "datasets", "jax", "peft", "tensorflow", "torch", "transformers", "trl", "unsloth"})
"""Packages that nothing may import before a run's worker has been started."""

OWN = "forge-train"
"""The distribution whose plugins are forge's own."""

Status = Literal["ok", "broken", "disabled", "other API", "duplicate"]


class HeavyImportError(ImportError):
    """A heavy package was imported while plugins were being discovered."""


class _Refusal(Loader):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        self.seen.append(spec.name)
        raise HeavyImportError(f"imports {spec.name} at discovery; import it inside the implementation")

    def exec_module(self, module: ModuleType) -> None:  # pragma: no cover - create_module has raised
        raise NotImplementedError


class _Guard(MetaPathFinder):
    """Finds heavy packages, so that ``find_spec`` still answers, and refuses to load them."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HEAVY:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _Refusal(self.seen)
        return spec


@contextmanager
def import_guard() -> Iterator[list[str]]:
    """Refuse heavy imports inside the block; yields the list of those tried, even where the error was swallowed."""
    seen: list[str] = []
    guard = _Guard(seen)
    sys.meta_path.insert(0, guard)
    try:
        yield seen
    finally:
        sys.meta_path.remove(guard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin that was found, and what became of it.

    Attributes:
        name: The entry point's name.
        distribution: The distribution that ships it.
        version: That distribution's version.
        status: ``"ok"``, or why it does not take part.
        reason: What is wrong with it, if anything.
        offers: What it can do.
        extensions: Its observers and wrappers.
    """

    name: str
    distribution: str
    version: str
    status: Status = "ok"
    reason: str | None = None
    offers: tuple[Offer, ...] = ()
    extensions: tuple[Extension, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it is one of forge's own."""
        return self.distribution == OWN


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All plugins that were found, sorted by name."""

    plugins: tuple[Plugin, ...]

    @property
    def usable(self) -> tuple[Plugin, ...]:
        """The plugins that take part."""
        return tuple(plugin for plugin in self.plugins if plugin.status == "ok")

    @property
    def unusable(self) -> tuple[Plugin, ...]:
        """The plugins that do not, each with its reason."""
        return tuple(plugin for plugin in self.plugins if plugin.status != "ok")

    def find(self, name: str) -> Plugin | None:
        """Return the plugin of this name, usable or not."""
        return next((plugin for plugin in self.plugins if plugin.name == name), None)

    def offers(self, stage: Stage) -> Iterator[tuple[Plugin, Offer]]:
        """Yield the usable offers for a stage."""
        for plugin in self.usable:
            for offer in plugin.offers:
                if offer.stage is stage:
                    yield plugin, offer


def discover(environ: Mapping[str, str] = os.environ, found: Iterable[EntryPoint] | None = None) -> Catalogue:
    """Find the plugins that are installed.

    Args:
        environ: ``FORGE_PLUGINS`` is read from it: ``a,b`` loads only these, ``-a,-b`` all but these, and nothing at
            all only forge's own.
        found: Entry points to look at instead of the installed ones.
    """
    candidates = sorted(
        _installed() if found is None else found, key=lambda point: (point.name, point.group, _source(point))
    )
    wanted = _wanted(environ.get("FORGE_PLUGINS"))
    twice: dict[str, set[tuple[tuple[str, str], str]]] = {}
    for point in candidates:
        if point.group == API:
            twice.setdefault(point.name, set()).add((_source(point), point.value))
    plugins, seen = [], set()
    for point in candidates:
        key = (point.name, point.group, _source(point), point.value)
        if key in seen:  # one distribution can be on the path twice, as an editable install beside its sources
            continue
        seen.add(key)
        if point.group != API:
            plugins.append(_unusable(point, "other API", f"speaks {point.group}, this forge speaks {API}"))
        elif not wanted(point):
            plugins.append(_unusable(point, "disabled", "switched off by FORGE_PLUGINS"))
        elif len(twice[point.name]) > 1:
            names = " and ".join(sorted(f"{name} {version}" for (name, version), _ in twice[point.name]))
            plugins.append(_unusable(point, "duplicate", f"two plugins have this name: {names}; uninstall one"))
        else:
            plugins.append(_load(point))
    return Catalogue(tuple(plugins))


def _installed() -> list[EntryPoint]:
    """Return the entry points of every version of the plugin API, without importing any."""
    every = entry_points()  # type: ignore[var-annotated,unused-ignore]  # its type differs between 3.11 and 3.12
    groups = [group for group in every.groups if re.fullmatch(r"forge_v\d+", group)]
    return [point for group in groups for point in every.select(group=group)]


def _source(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")


def _unusable(point: EntryPoint, status: Status, reason: str) -> Plugin:
    distribution, version = _source(point)
    return Plugin(name=point.name, distribution=distribution, version=version, status=status, reason=reason)


def _wanted(variable: str | None) -> Callable[[EntryPoint], bool]:
    if variable is None:
        return lambda _point: True
    if not variable.strip():
        return lambda point: _source(point)[0] == OWN
    names = {part.strip() for part in variable.split(",") if part.strip()}
    without = {name[1:] for name in names if name.startswith("-")}
    only = {name for name in names if not name.startswith("-")}
    return lambda point: point.name not in without and (point.name in only or not only)


def _load(point: EntryPoint) -> Plugin:
    """Import a plugin's module under the guard and collect its offers."""
    with import_guard() as seen:
        try:
            manager = pluggy.PluginManager("forge")
            manager.add_hookspecs(Discovery)
            manager.register(point.load(), name=point.name)
            manager.check_pending()
            described = [item for items in manager.hook.forge_offers() for item in items]
            reason = _fault(point.name, described)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises is its own verdict
            described, reason = [], f"{type(error).__name__}: {error}"
    if seen:
        reason = f"imports {seen[0]} at discovery; import it inside the implementation"
    if reason:
        return _unusable(point, "broken", reason)
    distribution, version = _source(point)
    return Plugin(
        name=point.name,
        distribution=distribution,
        version=version,
        offers=tuple(item for item in described if isinstance(item, Offer)),
        extensions=tuple(item for item in described if isinstance(item, Extension)),
    )


def _fault(plugin: str, described: Sequence[object]) -> str | None:
    """Return what is wrong with what a plugin yields, or None."""
    if not described:
        return "offers nothing: it has no hook forge_offers, or the hook yields nothing"
    for item in described:
        if not isinstance(item, Offer | Extension):
            return f"yields {type(item).__name__} where forge.api.Offer or Extension is due"
        if isinstance(item, Extension):
            continue
        if not isinstance(item.stage, Stage):
            return f"offers the stage {item.stage!r}; write a member of forge.api.Stage"
        if strange := {w for w in item.supports if w not in VOCABULARY[item.stage] and not w.startswith(f"{plugin}/")}:
            known = ", ".join(sorted(VOCABULARY[item.stage]))
            return f"supports {', '.join(sorted(strange))}, unknown for {item.stage}; known: {known}, {plugin}/…"
    return None


def resolve(reference: str) -> object:
    """Import ``"package.module:name"`` and return the object.

    Raises:
        ImportError: The module, or the name in it, does not exist.
    """
    module, _, name = reference.partition(":")
    target = importlib.import_module(module)
    try:
        return getattr(target, name)
    except AttributeError:
        raise ImportError(f"{module} has no {name}") from None
