"""What can be said about an adapter to go on from, ``[adapter] from``, before anything is imported.

It brings its own rank, alpha and targets: they are decided from its ``adapter_config.json``, so that memory is counted
with them and the lock has them, and a job that writes others contradicts itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Decision, ForgeError, Problem
from forge_huggingface.facts.shape import EMBEDDINGS
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.experts import decide_experts
from forge_huggingface.rules.tokens import named_tokens_in, new_tokens_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Job, Machine, ModelFacts
    from forge_huggingface.facts.adapter import Start

KEYS: Mapping[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": (int,),
    "lora_dropout": (int, float),
    "target_modules": (str, list),
    "target_parameters": (list,),
    "exclude_modules": (list,),
    "modules_to_save": (list,),
    "ensure_weight_tying": (bool,),
    "layers_to_transform": (list,),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
    "bias": (str,),
    "use_rslora": (bool,),
    "use_dora": (bool,),
}
"""The keys that an adapter brings, with the types that they have in a job; peft allows others."""

MAY_DIFFER = frozenset({"lora_dropout"})
"""Keys that another value of does not make another adapter."""

UNTRAINABLE: Mapping[str, str] = {
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "repeated layers",
    "megatron_config": "a model of Megatron",
}
"""What an adapter's config may have that forge does not train on."""

MERGE = 'to train a new one on top of it, export its run as "merged" and name that folder in [model] id'


def cannot_start(job: Job, facts: ModelFacts) -> str | None:
    """Return why a model cannot have the adapter that a job goes on from, or None.

    That it is not there, or is none, is a mistake of the job: :func:`start_problems` tells it with its line.
    """
    from forge_huggingface.facts.adapter import misfit  # only who goes on from an adapter needs it

    try:
        start = _start(job)
    except ForgeError:
        return None
    named = start.config.get("target_modules") if start is not None else None
    words = {name.rpartition(".")[2] for name in named} if isinstance(named, list) else set()
    if words & {*EMBEDDINGS, "lm_head"} and facts.shape is not None and facts.shape.tied:
        return "[adapter] from: its LoRA is on the embedding, which is the model's output layer too; merge it first"
    found = misfit(start, facts) if start is not None else None
    return f"[adapter] from: {found}; name the model that it was trained on in [model] id" if found else None


def start_problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with the adapter that a job goes on from, and which keys contradict it."""
    try:
        start = _start(job)
    except ForgeError as error:
        yield Problem("adapter.from", ": ".join(part for part in (error.what, error.why) if part), error.do)
        return
    if start is None:
        return
    table, config = job.adapter, start.config
    if (kind := config.get("peft_type")) != "LORA":
        yield Problem("adapter.from", f"{start.about} is of peft's type {kind}, and forge goes on from LoRA", MERGE)
        return
    for name, what in UNTRAINABLE.items():
        if config.get(name):
            yield Problem("adapter.from", f"{start.about} has {what} ({name})", MERGE)
    if table.digest and start.digest and table.digest != start.digest:
        what = f"{start.about} is another one: its digest is {start.digest[:12]}…, not {table.digest[:12]}…"
        yield Problem("adapter.digest", what, "restore it, or remove the digest")
    for name in KEYS.keys() - MAY_DIFFER:
        there = _value(config, name)
        if _is_written(job, name) and name in config and not _same(getattr(table, name), there):
            what = f"{start.about} has {json.dumps(there)}, and goes on as it is"
            yield Problem(f"adapter.{name}", what, f"remove it; {MERGE}")
    yield from _token_problems(job, start)
    begins = {"init_lora_weights": table.init_lora_weights is not True, **dict.fromkeys(table.parts, True)}
    for name, written in begins.items():
        if written:
            yield Problem(f"adapter.{name}", "it is for a new adapter, and this job goes on from one", "remove it")
    method = METHODS.get(job.train.method)
    if method is None:
        return
    classifies = config.get("task_type") == "SEQ_CLS"
    if classifies != method.pooled:
        gives = "numbers" if classifies else "text"
        yield Problem("adapter.from", f'{start.about} gives {gives}, and method = "{method.name}" does not', MERGE)
    elif method.reference and config.get("bias", "none") != "none":
        what = f"{start.about} trains biases, of which the model has one set: the reference would move with them"
        yield Problem("adapter.from", what, MERGE)


def _token_problems(job: Job, start: Start) -> Iterable[Problem]:
    """Yield what is wrong with the new tokens of a job, beside those that its adapter has rows for."""
    there, mine = new_tokens_in(dict(start.config), start.folder), (job.model.add_tokens, job.model.add_special_tokens)
    if there is None:
        if not job.model.new_tokens:
            what = f"{start.about} has rows of tokens, and no tokenizer beside it names them"
            yield Problem("adapter.from", what, "name them in [model] add_tokens, in the order of their ids")
    elif job.model.new_tokens and there != mine:
        say = f"it has {json.dumps([*there[0], *there[1]])}" if any(there) else "it has none"
        yield Problem("model.add_tokens", f"{start.about} has rows of other tokens: {say}", f"remove it; {MERGE}")


def decide_start(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield what the adapter that a job goes on from brings: where it is, its digest, and the keys of its config.

    Of a new one, yield what becomes of the experts of a mixture.
    """
    yield from decide_experts(machine, job, facts)
    start = _start(job)
    if start is None:
        return
    why = f"of {start.about}"
    if start.revision is None and start.folder is not None:
        yield Decision("adapter.from", str(start.folder), f"{job.adapter.from_} stands for it")
    elif start.revision is not None and job.adapter.revision != start.revision:
        yield Decision("adapter.revision", start.revision, "the commit on the hub")
    if start.digest and job.adapter.digest is None:
        yield Decision("adapter.digest", start.digest, why)
    tokens = new_tokens_in(dict(start.config), start.folder)
    for name, found in zip(("add_tokens", "add_special_tokens"), tokens or ((), ()), strict=True):
        if found and not job.model.new_tokens:
            yield Decision(f"model.{name}", found, why)
    base = Path(facts.path) if facts.path else None
    for name, token in named_tokens_in(start.folder, base, [token for each in tokens or () for token in each]).items():
        if getattr(job.model, name) is None:
            yield Decision(f"model.{name}", token, why)
    for name, kinds in KEYS.items():
        value = _value(start.config, name)
        if name in start.config and isinstance(value, kinds) and not _is_written(job, name):
            yield Decision(f"adapter.{name}", value, why)


def _start(job: Job) -> Start | None:
    if job.adapter.from_ is None:
        return None
    from forge_huggingface.facts.adapter import start_of  # only who goes on from an adapter needs it

    return start_of(job)


def _is_written(job: Job, name: str) -> bool:
    return name in job.adapter.model_fields_set and getattr(job.adapter, name) != "auto"


def _value(config: Mapping[str, Any], name: str) -> Any:
    """Return a value of an adapter's config as a job has it: peft writes sets in any order, one layer as a number."""
    value = config.get(name)
    if name == "layers_to_transform" and isinstance(value, int):
        return [value]
    return sorted(value) if isinstance(value, list) else value


def _same(mine: Any, theirs: Any) -> bool:
    """Whether a job's value is the adapter's: names in any order, and one name as a list of one."""
    if isinstance(theirs, list):
        return sorted([mine] if isinstance(mine, str) else mine or []) == theirs
    return bool((mine or None) == (theirs or None))
