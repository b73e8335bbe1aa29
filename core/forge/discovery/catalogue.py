"""The plugins that were found, usable or not, as records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import forge
from forge.api.reference import load_object
from forge.api.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge.api.check import Check
    from forge.api.code import Code
    from forge.api.command import Command
    from forge.api.offer import Extension, Function, Offer
    from forge.api.target import Target
    from forge.model.facts import ModelFacts


OWN = forge.DISTRIBUTION
"""The distribution whose plugins are forge's own."""

Status = Literal["ok", "broken", "disabled", "other API", "other forge", "duplicate"]


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
        extensions: Its observers.
        functions: The functions that jobs may name.
        commands: The commands that it brings.
        targets: The places where it can send jobs.
        checks: What `forge doctor` checks of it.
        describe: Its hook ``forge_describe``, if it has one.
        code: The file that it is, if it is one beside the job.
        deprecated: What it uses and should not any more, each as a phrase.
        named: Returns a function of it by its name, ``"package.module:function"``.
    """

    name: str
    distribution: str
    version: str
    status: Status = "ok"
    reason: str | None = None
    offers: tuple[Offer, ...] = ()
    extensions: tuple[Extension, ...] = ()
    functions: tuple[Function, ...] = ()
    commands: tuple[Command, ...] = ()
    targets: tuple[Target, ...] = ()
    checks: tuple[Check, ...] = ()
    describe: Callable[..., ModelFacts | None] | None = None
    code: Code | None = None
    deprecated: tuple[str, ...] = ()
    named: Callable[[str], Any] = field(default=load_object, repr=False)

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.distribution} {self.version})"

    @property
    def own(self) -> bool:
        """Whether it is one of forge's own."""
        return self.distribution == OWN


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All plugins that were found, sorted by name.

    Attributes:
        plugins: They.
        missed: Names in ``FORGE_PLUGINS`` that none of them has.
    """

    plugins: tuple[Plugin, ...]
    missed: tuple[str, ...] = ()

    @property
    def usable(self) -> tuple[Plugin, ...]:
        """The plugins that take part."""
        return tuple(plugin for plugin in self.plugins if plugin.status == "ok")

    @property
    def unusable(self) -> tuple[Plugin, ...]:
        """The plugins that do not, each with its reason."""
        return tuple(plugin for plugin in self.plugins if plugin.status != "ok")

    def find(self, name: str) -> Plugin | None:
        """Return the plugin of this name, usable or not; of several, the one that is."""
        named = [plugin for plugin in self.plugins if plugin.name == name]
        return next((plugin for plugin in named if plugin.status == "ok"), named[0] if named else None)

    def command(self, name: str) -> tuple[Plugin, Command] | None:
        """Return a command that a usable plugin brings, with the plugin; one of forge's own goes first."""
        every = [(plugin, command) for plugin in self.usable for command in plugin.commands if command.name == name]
        return min(every, key=lambda pair: not pair[0].own, default=None)

    def target(self, name: str) -> tuple[Plugin, Target] | None:
        """Return a place to send jobs to, with the plugin that brings it; one of forge's own goes first."""
        every = [(plugin, target) for plugin in self.usable for target in plugin.targets if target.name == name]
        return min(every, key=lambda pair: not pair[0].own, default=None)

    @property
    def functions(self) -> dict[str, str]:
        """The functions that jobs may name, by their names; what measures by questions of its own, by its plugin's."""
        measuring = [(plugin, offer) for plugin, offer in self.offers(Stage.EVALUATE) if "metrics" in offer.supports]
        functions = {function.name: function.impl for plugin in self.usable for function in plugin.functions}
        return functions | {plugin.name: offer.impl for plugin, offer in measuring}

    @property
    def code(self) -> list[Code]:
        """The files beside the job that are plugins."""
        return [plugin.code for plugin in self.plugins if plugin.code]

    def offers(self, stage: Stage) -> Iterator[tuple[Plugin, Offer]]:
        """Yield the usable offers for a stage."""
        for plugin in self.usable:
            for offer in plugin.offers:
                if offer.stage is stage:
                    yield plugin, offer
