"""What becomes of a plan when its run goes on: here, and with the plugins of today."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from forge.api.stage import Stage
from forge.errors import RunError
from forge.job.decisions import Decision, settle
from forge.planning.planner import of_offers
from forge.planning.spreading import usable_cards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forge.api.plan import Training
    from forge.discovery.catalogue import Catalogue
    from forge.job.job import Job
    from forge.job.tables import LaunchTable
    from forge.machine.machine import Machine


def renewed(plan: Training, catalogue: Catalogue, machine: Machine) -> Training:
    """Return the plan of a run that goes on, here and with the plugins of today: the same choices, by today's names.

    What was decided stays decided. A plugin may have moved an implementation since, so each step takes the one that the
    same plugin offers for the same words.

    Raises:
        RunError: A plugin is gone, cannot be used, or has no such offer any more.
    """
    steps, offers = [], []
    for step in plan.steps:
        plugin = catalogue.find(step.plugin)
        if plugin is None or plugin.status != "ok":
            if step.stage is Stage.EXPORT:  # exports are planned afresh
                continue
            why = "is not installed" if plugin is None else f"is {plugin.status}: {plugin.reason}"
            raise RunError(f"the run's {step.stage} needs plugin {step.plugin}", f"it {why}", "install it here")
        able = [offer for offer in plugin.offers if offer.stage is step.stage and set(step.words) <= offer.words]
        offer = next((offer for offer in able if offer.impl == step.impl), able[0] if able else None)
        if offer is None:
            why = f"its version {plugin.version} does not do {', '.join(step.words)} any more"
            raise RunError(f"the run's {step.stage} needs plugin {step.plugin}", why, f"install {step.version} of it")
        offers.append(offer)
        steps.append(
            replace(
                step,
                distribution=plugin.distribution,
                version=plugin.version,
                impl=offer.impl,
                preflight=offer.preflight,
                resumes=offer.resumes,
                upload=offer.upload,
                estimate=offer.estimate,
                fit=offer.fit,
            )
        )
    observers = tuple(_still(plan, catalogue))
    taking = {step.plugin for step in steps} | {name for name, _ in observers}
    taking |= {name.partition("/")[0] for name in plan.functions}
    found = [plugin for plugin in catalogue.usable if plugin.name in taking]
    return replace(
        plan,
        machine=machine,
        steps=tuple(steps),
        observers=observers,
        functions={name: catalogue.functions.get(name, impl) for name, impl in plan.functions.items()},
        plugins={plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in found},
        **of_offers(offers, catalogue),
    )


def respread(plan: Training, launch: LaunchTable, machine: Machine) -> Training:
    """Return the plan of a run that goes on, for as many processes as are asked for by now, or as there are GPUs.

    The checkpoint is of the whole training where each process holds the whole model, so another number can go on from
    it, if what a step trains on stays what it was and no random numbers are drawn on the way: each process has its own.

    Raises:
        RunError: The run cannot go on in that many processes.
    """
    before, cards = plan.launch, usable_cards(plan.asked(), machine)
    count, why = before.processes, ""
    if launch.processes not in ("auto", before.processes):
        count, why = launch.processes, "it was asked for"
    elif isinstance(count, int) and 0 < cards < count:
        count, why = cards, f"{cards} GPU{'s are' if cards > 1 else ' is'} in sight"
    nodes = launch.nodes
    if nodes != before.nodes:
        why = why or "[launch] nodes is another by now"
    if (count, nodes) == (before.processes, before.nodes) or not isinstance(count, int):
        return plan
    size, was, job = count * nodes, before.world_size, settle(plan.asked(), plan.decisions)
    if reason := _tied(job, before.shard, size):
        raise RunError(
            f"the run cannot go on in {size} process{'es' * (size != 1)}, for {why}",
            f"it began in {was}, and {reason}",
            f"go on with {was}, or start a new run",
        )
    decisions = [Decision("launch.processes", count, why)]
    if nodes != before.nodes:
        decisions.append(Decision("launch.nodes", nodes, "it was asked for"))
    return replace(plan, decisions=(*plan.decisions, *decisions))


def _tied(job: Job, shard: str, size: int) -> str | None:
    """Return why a training is tied to the number of processes that it began in, or None."""
    options = job.train.options
    if shard == "full" and size == 1:
        return "its checkpoints are of a sharded model, which one process does not read"
    steps = int(options.get("gradient_accumulation_steps") or 1)
    if steps % size:
        rows = options.get("per_device_train_batch_size")
        return f"a step has {steps} batch{'es' * (steps != 1)} of {rows} rows, which {size} cannot share evenly"
    if job.adapter.lora_dropout and not job.adapter.leaves_model:
        return "lora_dropout draws random numbers, of which each process has its own"
    if "max_completion_length" in options:
        return f"each process draws the answers of {job.train.method} with random numbers of its own"
    return None


def _still(plan: Training, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Yield the observers of a plan that are there today: of a plugin that has renamed its modules, those of today."""
    for name in dict.fromkeys(name for name, _ in plan.observers):
        plugin = catalogue.find(name)
        if plugin is not None and plugin.status == "ok":
            yield from ((name, extension.impl) for extension in plugin.extensions)


def renewed_plugins(before: Mapping[str, str], catalogue: Catalogue) -> Iterator[str]:
    """Yield which plugins are others than those that a run began with, or not here any more.

    Args:
        before: What :meth:`forge.api.Plan.versions` says of the run.
        catalogue: The plugins of today.
    """
    for name, was in before.items():
        plugin = catalogue.find(name)
        if plugin is None:
            yield f"plugin {name} ({was}) is not installed any more"
        elif plugin.status != "ok":
            yield f"plugin {name} ({was}) is {plugin.status} by now: {plugin.reason}"
        elif (now := f"{plugin.distribution} {plugin.version}") != was:
            yield f"plugin {name} was {was} and is {now}: the results may differ"
