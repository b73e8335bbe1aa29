"""``forge doctor``: the machine, and per plugin what works here and the one line that mends what does not."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import click

import forge
from forge.api.offer import Finding
from forge.cli.common import json_option, print_json, this_machine
from forge.cli.terminal import say
from forge.errors import PluginError, UsageError
from forge.text.units import amount, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.disk.speeds import Speeds
    from forge.machine.machine import Machine


@click.command(name="doctor")
@click.option("--machines", is_flag=True, help="List the machines that FORGE_MACHINE knows by name.")
@click.option("--measure", is_flag=True, help="Train a small job with each backend, and keep what it took for plans.")
@json_option
def command(machines: bool, measure: bool, as_json: bool) -> None:
    """Say what works on this machine and what would mend the rest. Nothing heavy is imported; nothing is changed."""
    from forge.discovery.discover import discover
    from forge.machine.presets import PRESETS

    if machines and measure:
        raise UsageError("--machines lists machines, and --measure trains on this one", do="give one of the two")
    if machines and as_json:
        print_json({name: preset.to_json() for name, preset in PRESETS.items()})
        return
    if machines:
        for name, preset in PRESETS.items():
            say(f"{name:<26}{_machine(preset)}")
        return
    machine = this_machine(pretend=not measure)
    if measure:
        _measure(discover(), machine, as_json=as_json)
        return
    from forge.disk import speeds

    report, table = examine(discover(), machine), speeds.read(machine)
    if as_json:
        print_json({"machine": machine.to_json(), "plugins": report, "speeds": _known(table)})
        return
    say(f"machine   {_machine(machine)}")
    for name in ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes"):
        say(f"          {name} {machine.versions.get(name, 'is not installed')}")
    if mismatch := machine.mismatch():
        say(f"          {mismatch}", fg="yellow")
    for told in _known(table):
        say(f"measured  {told}")
    shown: dict[str, str] = {}
    for line in report:
        say()
        told = line["checks"]
        good = line["status"] == "ok" and not line["reasons"] and not any(each["severity"] == "error" for each in told)
        say(f"{line['name']}: {'works here' if good else line['status']}", fg="green" if good else "yellow")
        for stage in line["works"]:
            say(f"  {stage}: yes")
        for reason in dict.fromkeys(line["reasons"]):
            say(f"  {reason}")
        for each in told:
            mark = "" if each["severity"] == "note" else f"{each['severity']}: "
            say(f"  {mark}{each['message']}" + (f"; {each['do']}" if each["do"] else ""))
        if line["mend"]:
            say(f"  mend it: {line['mend']}", bold=True)
        for text in _values(line, shown):
            say(text)


def _values(line: Mapping[str, Any], shown: dict[str, str]) -> Iterator[str]:
    """Yield what single values of a job would need of a plugin; ``shown`` has by whom each was told before."""
    if line["values"]:
        yield "  not here, for single values of a job:"
    before: dict[str, int] = {}
    for value in line["values"]:
        text = f"    {value['key']}: {value['reason']}" + (f" ({value['mend']})" if value["mend"] else "")
        if (name := shown.setdefault(text, line["name"])) == line["name"]:
            yield text
        else:
            before[name] = before.get(name, 0) + 1
    for name, count in before.items():
        yield f"    {count} that are told of {name} above"


def _measure(catalogue: Catalogue, machine: Machine, *, as_json: bool) -> None:
    """Train the trial of each backend, and tell what the table knows then."""
    from forge import records
    from forge.disk import speeds
    from forge.parent.measure import measure

    found = list(measure(catalogue, machine, lambda name: say(f"measuring {name} …", err=as_json)))
    table = speeds.read(machine)
    if as_json:
        runs = {each.plugin: records.to_json(each.timed) if each.timed else None for each in found}
        print_json({"table": str(speeds.table()), "runs": runs, "why": {e.plugin: e.why for e in found if e.why}})
        return
    for each in found:
        if each.why:
            say(f"{each.plugin} is not measured: {each.why}", fg="yellow")
    for line in _known(table):
        say(f"measured  {line}")
    if any(each.timed for each in found):
        say(f"kept in {speeds.table()}")


def _known(speeds: Speeds) -> list[str]:
    """Return the lines that tell what the table knows of a machine: of each kind of run, the medians."""
    lines = []
    for kind in dict.fromkeys(run.kind for run in speeds.runs):
        runs = [run for run in speeds.runs if run.kind == kind]
        first, flops = runs[0], [run.flops for run in runs if run.flops]
        about = [f"{amount(first.parameters)} parameters", *([first.bits] if first.bits else [])]
        about += ["gradient checkpointing"] if first.checkpointing else []
        took = [f"{median(run.start for run in runs):.1f} s to start"]
        if tokens := [run.tokens_per_second for run in runs if run.tokens_per_second]:
            took.append(f"{median(tokens):,.0f} tokens/s")
        took += [f"{median(flops) / 1e12:.3g} TFLOP/s"] if flops else []
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        lines.append(f"{first.backend}, {', '.join(about)}: {', '.join(took)} ({count})")
    if speeds.stale:
        lines.append(f"{speeds.stale} of other versions of the libraries, which are not used")
    if speeds.fault:
        lines.append(f"{speeds.fault}; the next run begins it anew")
    return lines


def examine(catalogue: Catalogue, machine: Machine) -> list[dict[str, Any]]:
    """Check every offer against the machine alone, without a job.

    Returns:
        For each plugin its name, status, the stages and commands that work, reasons against the others, one line that
        mends what packages can mend, what single values of a job would need beside, and what its checks find.
    """
    found = []
    for plugin in catalogue.plugins:
        works, reasons, missing = _offered(plugin, machine)
        works += [f"forge {command.name}" for command in plugin.commands]
        works += [f"submit --to {target.name}" for target in plugin.targets]
        idle = plugin.offers and not works  # a plugin that only watches or describes has nothing that could fail
        found.append(
            {
                "name": plugin.name,
                "status": "does not work here" if plugin.status == "ok" and idle else plugin.status,
                "works": works,
                "reasons": [*([str(plugin.reason)] if plugin.status != "ok" else []), *reasons],
                "mend": _mend(plugin, missing),
                "values": list(_needed(plugin, machine)),
                "checks": _checked(plugin, machine),
            }
        )
    return found


def _offered(plugin: Plugin, machine: Machine) -> tuple[list[str], list[str], list[str]]:
    """Return the stages of a plugin that work on a machine, reasons against the others, and what they lack."""
    from forge.discovery.requirements import missing_requirement

    works: dict[str, None] = {}
    reasons: list[str] = []
    missing: list[str] = []
    for offer in plugin.offers:
        if offer.platforms and machine.platform not in offer.platforms:
            reasons.append(f"{offer.stage}: needs {' or '.join(sorted(offer.platforms))}, this is {machine.platform}")
        elif offer.accelerators and not offer.accelerators & machine.usable_kinds:
            reasons.append(f"{offer.stage}: needs {' or '.join(sorted(offer.accelerators))}")
        elif lacking := missing_requirement(offer.requires_dist, machine):
            reasons.append(f"{offer.stage}: {lacking.reason}")
            missing += lacking.install
        else:
            works[offer.stage.value] = None
    return list(works), reasons, missing


def _mend(plugin: Plugin, missing: Sequence[str]) -> str | None:
    """Return the line that installs what a plugin lacks: of forge's own the extra that is called as it, if one is."""
    from importlib.metadata import metadata

    from packaging.requirements import Requirement

    from forge.discovery.requirements import quoted

    if not missing:
        return None
    if plugin.own:
        extras = metadata(forge.DISTRIBUTION).get_all("Provides-Extra") or []
        if extra := next((name for name in (plugin.name, plugin.name.partition("-")[0]) if name in extras), None):
            return f'pip install "{forge.DISTRIBUTION}[{extra}]"'
    return f"pip install {quoted(dict.fromkeys(str(Requirement(text)) for text in missing))}"


def _needed(plugin: Plugin, machine: Machine) -> Iterator[dict[str, Any]]:
    """Yield what single values of a job would need of a plugin beside."""
    from forge.discovery.requirements import missing_package, quoted

    for package in dict.fromkeys(package for offer in plugin.offers for package in offer.packages):
        if absent := missing_package(package, machine):
            line = f"pip install {quoted(absent.install)}" if absent.install else None
            yield {"key": package.wish, "reason": absent.reason, "mend": line}


def _checked(plugin: Plugin, machine: Machine) -> list[dict[str, Any]]:
    """Return what the checks of a plugin find; one that fails is a finding itself."""
    from forge.discovery.checks import findings

    found = []
    for check in plugin.checks:
        try:
            said = findings(plugin, check, machine)
        except PluginError as error:
            said = [Finding("error", f"{error.what}: {error.why}", error.do)]
        found += [{"check": check.name, **asdict(each)} for each in said]
        found += [] if said else [{"check": check.name, "severity": "note", "message": f"{check.name}: ok", "do": None}]
    return found


def _machine(machine: Machine) -> str:
    cards = ", ".join(f"{card.name} ({size(card.memory)})" for card in machine.accelerators) or "no accelerator"
    where = f"{machine.platform}{' (WSL)' if machine.wsl else ''} {machine.arch}"
    return f"{where}, Python {machine.python}, {machine.cores} cores, {size(machine.memory)}, {cards}"
