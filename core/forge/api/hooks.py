"""The hooks: what forge calls on plugins, while it plans and in a worker.

A plugin is a module named by an entry point in the group :data:`API`. While planning, forge calls the hooks of
:class:`PlanHooks` on every plugin; in a worker, those of :class:`RunHooks` on the one that was chosen for a stage.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from forge.api.deprecated import ForgeDeprecationWarning, hook_warnings, used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from forge.api.check import Check
    from forge.api.command import Command
    from forge.api.event import Event
    from forge.api.generation import Generator
    from forge.api.offer import Extension, Function, Offer
    from forge.api.plan import Who
    from forge.api.results import Data, Evaluated, Exported, Loaded, Trained
    from forge.api.run import Run
    from forge.api.target import Target
    from forge.job.data import Source
    from forge.job.job import Job
    from forge.job.tables import ExportTable
    from forge.model.facts import ModelFacts


API = "forge_v1"
"""The entry-point group. Its name carries the version of this interface."""

hookspec = pluggy.HookspecMarker("forge")
hookimpl = pluggy.HookimplMarker("forge")
"""Marks a plugin's functions as implementations of forge's hooks."""


class PlanHooks:
    """Hooks called on every plugin at planning time. They must be light: importing torch here disables the plugin."""

    @hookspec
    def forge_offers(self) -> Iterable[Offer | Extension | Function]:
        """Yield what the plugin can do."""
        raise NotImplementedError

    @hookspec
    def forge_commands(self) -> Iterable[Command]:
        """Yield the commands that the plugin brings."""
        raise NotImplementedError

    @hookspec
    def forge_targets(self) -> Iterable[Target]:
        """Yield the places where the plugin can send jobs."""
        raise NotImplementedError

    @hookspec
    def forge_checks(self) -> Iterable[Check]:
        """Yield what `forge doctor` checks of the plugin on a machine."""
        raise NotImplementedError

    @hookspec
    def forge_describe(self, id: str, revision: str | None, folder: Path) -> ModelFacts | None:  # noqa: A002
        """Find out about a model, from files or one small request; None if it is not of a kind that the plugin knows.

        Args:
            id: The job's ``[model] id``.
            revision: The job's ``[model] revision``.
            folder: Where relative paths start.

        Raises:
            ModelError: The model is missing, gated, incomplete or damaged.
        """
        raise NotImplementedError


class RunHooks:
    """Hooks called in the worker, each on the one implementation that was chosen for the stage.

    pluggy passes an implementation only the arguments that it names.
    """

    @hookspec(firstresult=True)
    def forge_collate(self, job: Job, run: Run) -> Data:
        """Turn the job's sources into rows. Only the tokenizer or processor and the model's config are needed."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_load(self, job: Job, run: Run, data: Data) -> Loaded:
        """Load the base model from a local folder and leave that folder in ``model.config._name_or_path``."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_adapt(self, job: Job, run: Run, loaded: Loaded) -> Loaded:
        """Add trainable parameters, or choose which to train."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_train(self, job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
        """Train, from ``run.resume`` if that is set, and leave the weights in the run folder."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_generate(
        self, job: Job, run: Run, trained: Trained, source: Literal["tuned", "base", "gguf"], file: Path | None
    ) -> Generator:
        """Make the trained weights, the base model or a GGUF file answer: what chat and evaluation talk to."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_evaluate(
        self,
        job: Job,
        run: Run,
        trained: Trained,
        generate: Callable[[Who], Generator],
        measured: Evaluated | None,
    ) -> Evaluated:
        """Ask the held-out rows of the models in ``run.plan.models``, each of them made by ``generate``.

        An offer that supports ``metrics`` asks what the job's ``[eval] metrics`` name behind the plugin's name and a
        colon. What such plugins have measured, the one that asks the held-out rows gets as ``measured``, for what it
        writes; forge itself puts them together.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_export(self, job: Job, run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
        """Write one export into ``out``, from files only: no training backend is needed."""
        raise NotImplementedError


class ReadHooks:
    """The hook of readers: functions that a job names in a path, ``path = "<plugin>/<word>:…"``."""

    @hookspec
    def forge_read(self, job: Job, source: Source, path: str) -> Iterable[Mapping[str, Any]]:
        """Yield the rows of ``path``, what stands behind the colon, each a dict by column as a line of a file is.

        Formats, templates, masks, held-out rows and previews are then as for files.
        """
        raise NotImplementedError


class EventHooks:
    """The hook of observers: plugins that the job names in ``[use] with``, or that own one of its tables."""

    @hookspec
    def forge_event(self, event: Event, run: Run) -> None:
        """See an event of a run. What an observer raises is told once and logged, never fatal."""


class Hooks(pluggy.PluginManager):
    """The hooks of one class of them, and the modules that implement some.

    Args:
        kind: The class: :class:`PlanHooks` or one of its like.
        beside: Another class, whose hooks the same modules may hold: they are passed over here.
    """

    def __init__(self, kind: type, beside: type | None = None) -> None:
        super().__init__("forge")
        self._beside = beside
        self.add_hookspecs(kind)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return how a member of a module is marked as a hook, if it is, and one of these."""
        return None if hasattr(self._beside, name) else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        """Return what a hook was declared with, and what of it is deprecated."""
        options = super().parse_hookspec_opts(module_or_class, name)
        if options is not None:
            code = getattr(module_or_class, name).__code__
            arguments = code.co_varnames[: code.co_argcount]
            options["warn_on_impl"], options["warn_on_impl_args"] = hook_warnings(name, arguments)
        return options

    def admit(self, module: object, name: str | None = None) -> None:
        """Register what implements hooks; where it uses deprecated ones, tell so.

        Raises:
            PluginValidationError: It implements a hook that there is not, or names an argument that there is not.
        """
        with warnings.catch_warnings(record=True) as caught:  # around pluggy alone: imports may set filters for good
            warnings.simplefilter("always", ForgeDeprecationWarning)
            self.register(module, name=name)
            self.check_pending()
        for each in caught:
            if isinstance(each.message, ForgeDeprecationWarning):
                used(str(each.message))
            else:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
