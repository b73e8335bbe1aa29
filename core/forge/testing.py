"""For authors of plugins: one call that checks a plugin against the contract, as forge checks its own."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api.hooks import RunHooks
from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.discover import discover
from forge.discovery.guard import HEAVY
from forge.discovery.keys import PluginKeys, config_models, model_of, options_fault
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts

if TYPE_CHECKING:
    from forge.api.offer import Offer
    from forge.discovery.catalogue import Plugin

PROBE_SECONDS = 0.1
"""What a probe may take of the processor: ``forge plan`` asks every offer, and answers within half a second. A good one
takes a millisecond; the rest is for busy machines. Waiting does not count, for others at work would count too."""


def check_plugin(name: str) -> Plugin:
    """Check an installed plugin: discovery, offers, implementations, options, probes.

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
        "print(json.dumps([p and p.status, p and p.reason, sorted(sys.modules)]))"
    )
    child = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    status, reason, modules = json.loads(child.stdout.splitlines()[-1])
    assert status is not None, f"no plugin {name} is installed: check the entry point's group and name"
    assert status == "ok", f"plugin {name} is {status}: {reason}"
    assert not HEAVY & set(modules), f"discovering {name} imports {HEAVY & set(modules)}"
    plugin = discover({}, apart=False).find(name)
    assert plugin is not None
    for offer in plugin.offers:
        check_offer(plugin, offer)
    for model in config_models(plugin):
        assert model.model_config.get("extra") == "forbid", f"{model.__name__} accepts unknown keys: a typo would pass"
        model()
    return plugin


def check_offer(plugin: Plugin, offer: Offer) -> None:
    """Check one offer. Raises :class:`AssertionError`."""
    place = f"{plugin.name}'s offer {offer.impl}"
    if offer.options:
        for word in offer.serves:
            model = model_of(plugin, offer.options, word)
            assert (fault := options_fault(offer.stage, model)) is None, f"{place} {fault}"
            assert model.model_config.get("extra") == "forbid", f"{place}: its options for {word} accept unknown keys"
    if offer.probe:
        job = parse('[model]\nid = "m"\n[data]\npath = "d.jsonl"\n', "job.toml", Path(), PluginKeys(discover({}))).job
        facts = ModelFacts(id="m", source="unknown")
        for label, machine in PRESETS.items():
            start = time.process_time()
            answers = [offer.probe(machine, job, facts) for _ in range(2)]
            took = (time.process_time() - start) / 2
            assert answers[0] == answers[1], f"{place}: the probe gives two answers for {label}"
            assert answers[0] is None or answers[0], f"{place}: the probe refuses {label} without a reason"
            assert took < PROBE_SECONDS, f"{place}: the probe takes {took * 1000:.0f} ms of the processor for {label}"


def check_implementation(offer: Offer) -> None:
    """Import an offer's implementation, which may be heavy, and check its arguments. Raises :class:`AssertionError`."""
    function = load_object(offer.impl)
    assert callable(function), f"{offer.impl} is not callable"
    known = set(inspect.signature(getattr(RunHooks, f"forge_{offer.stage}")).parameters) - {"self"}
    strange = set(inspect.signature(function).parameters) - known
    assert not strange, f"{offer.impl} asks for {', '.join(strange)}; {Stage(offer.stage)} has {', '.join(known)}"
