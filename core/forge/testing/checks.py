"""The contract of a plugin, checked as forge checks its own."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pluggy

from forge.api.deprecated import ForgeDeprecationWarning, heard
from forge.api.estimate import Estimate
from forge.api.hooks import EventHooks, Hooks, PlanHooks, RunHooks, hookimpl
from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.calls import call, records_of
from forge.discovery.checks import findings
from forge.discovery.discover import discover
from forge.discovery.guard import HEAVY
from forge.discovery.keys import STAGES, PluginKeys, config_models, model_of, options_fault
from forge.discovery.requirements import missing_requirement
from forge.errors import JobError, Problem
from forge.job.decisions import Decision, decidable
from forge.job.keys import SELECTORS
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.machine.probe import probe
from forge.model.facts import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge.api.offer import Extension, Offer
    from forge.discovery.catalogue import Plugin
    from forge.job.job import Job
    from forge.machine.machine import Machine

PROBE_SECONDS = 0.1
"""What a probe may take of the processor: ``forge plan`` asks every offer, and answers within half a second. A good one
takes a millisecond; the rest is for busy machines. Waiting does not count, for others at work would count too."""


def check_plugin(name: str) -> Plugin:
    """Check an installed plugin: discovery, offers with what they name and say, keys, observers, commands.

    What is not installed for an offer to work leaves its functions unimported, with a warning. What the plugin uses and
    a later forge will not have is a :class:`forge.api.ForgeDeprecationWarning`.

    Args:
        name: The name of its entry point.

    Returns:
        The plugin.

    Raises:
        AssertionError: It breaks the contract; the message says where.
    """
    code = (
        "import json, sys; from forge.discovery.discover import discover; "
        "p = discover({}, apart=False).find(sys.argv[1]); "
        "print(json.dumps([p and p.status, p and p.reason, p and p.deprecated, sorted(sys.modules)]))"
    )
    child = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    status, reason, deprecated, modules = json.loads(child.stdout.splitlines()[-1])
    assert status is not None, f"no plugin {name} is installed: check the entry point's group and name"
    assert status == "ok", f"plugin {name} is {status}: {reason}"
    assert not HEAVY & set(modules), f"discovering {name} imports {HEAVY & set(modules)}"
    plugin = discover({}, apart=False).find(name)
    assert plugin is not None
    with heard() as old:
        _check(plugin)
    for what in dict.fromkeys([*deprecated, *old]):
        warnings.warn(f"{plugin} uses {what}", ForgeDeprecationWarning, stacklevel=2)
    return plugin


def _check(plugin: Plugin) -> None:
    here = probe()
    for offer in plugin.offers:
        check_offer(plugin, offer)
        if (missing := missing_requirement(offer.requires_dist, here)) is None:
            check_implementation(offer)
        else:
            warnings.warn(f"{offer.impl} is not imported: {missing.reason}", stacklevel=3)
    for extension in plugin.extensions:
        check_extension(plugin, extension)
    for function in plugin.functions:
        _function(function.impl)
    for command in plugin.commands:
        said = f"{command.impl} is no click.Command"
        assert isinstance(load_object(command.impl), click.Command), said
    for check in plugin.checks:
        for label, machine in PRESETS.items():
            found = [findings(plugin, check, machine) for _ in range(2)]
            assert found[0] == found[1], f"{plugin.name}'s check {check.name} says two things of {label}"
    for model in config_models(plugin):
        assert model.model_config.get("extra") == "forbid", f"{model.__name__} accepts unknown keys: a typo would pass"
        model()


def check_offer(plugin: Plugin, offer: Offer) -> None:
    """Check one offer: its keys, and what it says of jobs and machines. Raises :class:`AssertionError`."""
    place = f"{plugin.name}'s offer {offer.impl}"
    if offer.options:
        for word in offer.serves:
            model = model_of(plugin, offer.options, word)
            assert (fault := options_fault(offer.stage, model)) is None, f"{place} {fault}"
            assert model.model_config.get("extra") == "forbid", f"{place}: its options for {word} accept unknown keys"
    jobs = list(_jobs(plugin, offer))
    for label, machine in PRESETS.items():
        for job in jobs:
            _check_planning(plugin, offer, place, label, machine, job)


def _jobs(plugin: Plugin, offer: Offer) -> Iterator[Job]:
    """Yield short jobs that ask for an offer's words; one that needs more keys is left out."""
    keys = PluginKeys(discover({}))
    table = next((name for name, stage in STAGES.items() if stage is offer.stage), None)
    head = {"export": "[[export]]"}.get(str(table), f"[{table}]")
    for word in sorted(offer.serves) or [""]:
        asks = f'{head}\n{SELECTORS[str(table)]} = "{word}"\n' if word else ""
        use = f'[use]\n{offer.stage} = "{plugin.name}"\n'
        with suppress(JobError):
            yield parse(f"{_JOB}{asks}{use}", "job.toml", Path(), keys).job


_JOB = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\n'


def _check_planning(plugin: Plugin, offer: Offer, place: str, label: str, machine: Machine, job: Job) -> None:
    """Check what an offer says of a job on a machine: of the right type, the same twice, and nothing is changed."""
    facts, before = ModelFacts(id="m", source="unknown"), job.model_dump_json()
    if offer.probe:
        start = time.process_time()
        answers = [call(plugin, "its probe", offer.probe, machine, job, facts) for _ in range(2)]
        took = (time.process_time() - start) / 2
        assert answers[0] == answers[1], f"{place}: the probe gives two answers for {label}"
        assert answers[0] is None or answers[0], f"{place}: the probe refuses {label} without a reason"
        assert answers[0] is None or isinstance(answers[0], str), f"{place}: the probe answers {answers[0]!r}"
        assert took < PROBE_SECONDS, f"{place}: the probe takes {took * 1000:.0f} ms of the processor for {label}"
    _check_say(plugin, offer, place, machine, job)
    if offer.estimate:
        found = call(plugin, "its estimate", plugin.named(offer.estimate), machine, job, facts)
        assert found is None or isinstance(found, Estimate), f"{place}: its estimate returns {type(found).__name__}"
    assert job.model_dump_json() == before, f"{place} changes the job that it is shown"


def _check_say(plugin: Plugin, says: Offer | Extension, place: str, machine: Machine, job: Job) -> None:
    """Check what an offer or observer finds wrong with a job, and decides for it."""
    facts = ModelFacts(id="m", source="unknown")
    problems = [records_of(plugin, "its check", Problem, says.check, job) for _ in range(2)]
    assert problems[0] == problems[1], f"{place}: its check finds other problems the second time"
    decided = [
        records_of(plugin, "its decide", Decision, says.decide, machine, job, facts, named=frozenset())
        for _ in range(2)
    ]
    assert decided[0] == decided[1], f"{place}: it decides otherwise the second time"
    for decision in decided[0]:
        assert decidable(job, decision.key), f"{place}: it decides {decision.key}, which is no key that a plan decides"
        assert decision.reason, f"{place}: it decides {decision.key} without a reason"


def check_extension(plugin: Plugin, extension: Extension) -> None:
    """Import an observer and check its hooks. Raises :class:`AssertionError`."""
    place = f"{plugin.name}'s observer {extension.impl}"
    for machine in PRESETS.values():
        _check_say(plugin, extension, place, machine, parse(_JOB, "job.toml", Path(), PluginKeys(discover({}))).job)
    manager = Hooks(EventHooks, beside=PlanHooks)
    try:
        manager.admit(importlib.import_module(extension.impl))
    except pluggy.PluginValidationError as error:
        raise AssertionError(f"{place}: {error}") from error
    assert manager.hook.forge_event.get_hookimpls(), f"{place} has no forge_event that is marked by hookimpl"


def check_implementation(offer: Offer) -> None:
    """Import an offer's functions, which may be heavy, and check their arguments. Raises :class:`AssertionError`."""
    function = _function(offer.impl)
    known = set(inspect.signature(getattr(RunHooks, f"forge_{offer.stage}")).parameters) - {"self"}
    strange = set(inspect.signature(function).parameters) - known
    assert not strange, f"{offer.impl} asks for {', '.join(strange)}; {Stage(offer.stage)} has {', '.join(known)}"
    for reference, count, named in ((offer.preflight, 3, ()), (offer.upload, 2, ()), (offer.estimate, 3, ("longest",))):
        if reference:
            try:
                inspect.signature(_function(reference)).bind(*[None] * count, **dict.fromkeys(named))
            except TypeError as error:
                raise AssertionError(f"{reference} does not take what it is given: {error}") from error
    try:
        marked = hookimpl(function)
    except AttributeError as error:
        raise AssertionError(f"{offer.impl} cannot be marked as a hook: write a function around it") from error
    Hooks(RunHooks).admit(SimpleNamespace(**{f"forge_{offer.stage}": marked}))  # which tells of what is deprecated


def _function(reference: str) -> Callable[..., object]:
    try:
        found = load_object(reference)
    except ImportError as error:
        raise AssertionError(f"{reference} cannot be imported: {error}") from error
    assert callable(found), f"{reference} is not callable"
    return found
