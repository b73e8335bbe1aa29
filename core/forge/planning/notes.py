"""What a user should know of a plan beside its choices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forge.job.nearest import did_you_mean
from forge.planning.absent import absent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.planning.fitting import Choice
    from forge.planning.observing import Acting


def notes(
    file: JobFile,
    catalogue: Catalogue,
    chosen: Sequence[Choice],
    observers: Sequence[Acting],
    machine: Machine,
    facts: ModelFacts,
) -> Iterator[str]:
    """Yield what a user should know. A plugin that the job does not mention is none of it, whatever ails it."""
    job = file.job
    taken = {choice.plugin.name for choice in chosen}
    for name in job.plugins:
        plugin = catalogue.find(name)
        if plugin and plugin.offers and name not in taken and not plugin.extensions:
            yield f"[plugins.{name}] does nothing here: {name} was not chosen"
    for text in job.use.plugins:
        if plugin := catalogue.find(Path(text).stem):
            yield f"local code: this job runs {text} (sha256 {plugin.version}…), as [use] plugins says"
    for name in catalogue.missed:
        hint = did_you_mean(name, [plugin.name for plugin in catalogue.plugins], "see `forge plugins`")
        yield f"FORGE_PLUGINS names {name}, and there is no such plugin here; {hint}"
    yield from _locked(job, catalogue)
    yield from old_ways([*(choice.plugin for choice in chosen), *(each.plugin for each in observers)])
    yield from _preferences(job, file.config, catalogue, chosen)
    if mismatch := machine.mismatch():
        yield mismatch
    if tokens := job.model.new_tokens:
        how = "with all weights" if job.adapter.leaves_model else "beside the adapter, which holds them"
        named = f"{', '.join(tokens[:5])}{' …' if len(tokens) > 5 else ''}"
        yield f"tokens that the tokenizer does not have are added ({named}): their rows are trained {how}"
    cards = [card for card in machine.accelerators if card.kind in machine.usable_kinds]
    used = 1 if job.launch.processes == "auto" else job.launch.processes
    if (idle := len(cards) - used) > 0 and not job.train.options.get("use_cpu"):
        what = f"{used} of {len(cards)} GPUs {'is' if used == 1 else 'are'} used"
        yield f"{what}, and {idle} more {'is' if idle == 1 else 'are'} idle"
    if facts.note:
        yield facts.note
    for each in absent(job):
        yield f"{each.where}: {each.message}, so a run would not begin; {each.do}"


def _locked(job: Job, catalogue: Catalogue) -> Iterator[str]:
    """Yield which plugins are not those that a lock was made with."""
    for name, before in job.use.versions.items():
        plugin = catalogue.find(name)
        if plugin is None or plugin.status != "ok":
            yield f"the lock was made with plugin {name} ({before}), which is not here"
        elif plugin.code is None and (now := f"{plugin.distribution} {plugin.version}") != before:
            yield f"the lock was made with plugin {name} ({before}), and here it is {now}: the results may differ"


def old_ways(plugins: Iterable[Plugin]) -> Iterator[str]:
    """Yield what plugins use and a later forge will not have."""
    for plugin in {each.name: each for each in plugins}.values():
        yield from (f"{plugin} uses {what}" for what in plugin.deprecated)


def _preferences(job: Job, config: str | None, catalogue: Catalogue, chosen: Sequence[Choice]) -> Iterator[str]:
    """Yield what became of the plugins that the user prefers, where the choices themselves do not say it."""
    where = config or "[use] prefer"
    backends = {offer.backend for plugin in catalogue.usable for offer in plugin.offers}
    for name in job.use.prefer:
        plugin = catalogue.find(name)
        labels = [choice.need.label for choice in chosen if name in {choice.plugin.name, choice.offer.backend}]
        if labels and config:
            yield f"{config} prefers {name}: taken for {', '.join(labels)}"
        elif plugin is None and name not in backends:
            known = sorted({each.name for each in catalogue.plugins} | {each for each in backends if each})
            near = did_you_mean(name, known, "see `forge plugins`")
            yield f"{where} names {name}, and there is no such plugin or backend here; {near}"
        elif plugin is not None and plugin.status != "ok" and name not in backends:
            yield f"{where} names {name}, which is {plugin.status}: {plugin.reason}"
        elif not labels:
            yield f"{where} names {name}, and nothing of it was taken"
