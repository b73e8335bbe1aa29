"""What would make a job take less memory, the gentlest change first, and which of them together make it fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import AdapterTable, Decision, Estimate, Lever, settle
from forge_huggingface.arguments.contradictions import CHECKS
from forge_huggingface.arguments.options import defaults
from forge_huggingface.memory.parts import BEFORE, bare
from forge_huggingface.methods import METHODS, splits
from forge_huggingface.rules.loading import cannot_load
from forge_huggingface.rules.training import cannot_train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import Job, Machine, ModelFacts
    from forge_huggingface.memory.kernels import Kernels


def levers_of(
    machine: Machine, job: Job, facts: ModelFacts, kernels: Kernels, longest: int | None, used: frozenset[str]
) -> Iterator[Lever]:
    """Yield what would take less, the gentlest first: what can run here, saves 2 % or more and touches no used key."""
    now = bare(machine, job, facts, kernels, longest)
    peak = (now and now.peak) or 0
    for changes, cost in changes_of(job, facts):
        other = with_changes(job, changes)
        if used & {key for key, _ in changes} or refused(machine, other, facts):
            continue
        less = bare(machine, other, facts, kernels, longest)
        saves = peak - (less.peak or 0) if less else 0
        if saves >= 0.02 * peak:
            yield Lever(changes, saves, cost)


def mend(
    machine: Machine, job: Job, facts: ModelFacts, kernels: Kernels, longest: int | None
) -> tuple[tuple[Lever, ...], int | None]:
    """Return the levers that together make a job fit, the gentlest first, and what it takes then; none if none do."""

    def left(levers: list[Lever]) -> Estimate | None:
        changes = tuple(change for lever in levers for change in lever.changes)
        return bare(machine, with_changes(job, changes), facts, kernels, longest)

    taken: list[Lever] = []
    used: frozenset[str] = frozenset()
    found: Estimate | None = None
    while found is None or not found.fits:
        so_far = with_changes(job, tuple(change for lever in taken for change in lever.changes))
        lever = next(levers_of(machine, so_far, facts, kernels, longest, used), None)
        if lever is None:
            return (), None
        taken.append(lever)
        used |= {key for key, _ in lever.changes}
        found = left(taken)
    for lever in reversed(taken):  # a later one may have made it needless
        without = left(rest := [other for other in taken if other is not lever])
        if without is not None and without.fits:
            taken, found = rest, without
    return tuple(taken), found.process


def changes_of(job: Job, facts: ModelFacts) -> list[tuple[tuple[tuple[str, Any], ...], str]]:
    """Return the changes of a job that take less memory, the gentlest first, each with its cost."""
    options = job.train.options
    rows, steps = (
        int(options.get(name) or least)
        for name, least in (("per_device_train_batch_size", 8), ("gradient_accumulation_steps", 1))
    )
    limit = facts.context if job.model.max_seq_length == -1 else job.model.max_seq_length
    found: list[tuple[tuple[tuple[str, Any], ...], str]] = []
    if job.model.attn_implementation == "eager":
        found.append(((("model.attn_implementation", "sdpa"),), ""))
    if not options.get("gradient_checkpointing"):
        found.append(((("train.gradient_checkpointing", True),), "about 25 % slower"))
    elif (which := options.get("gradient_checkpointing_kwargs") or {}).get("every_n_layers", 1) > 1:
        all_of_them = {**which, "every_n_layers": 1}
        found.append(((("train.gradient_checkpointing_kwargs", all_of_them),), "up to 25 % slower"))
    if rows > 1 and splits(job.train.method, options):
        both = (("train.per_device_train_batch_size", 1), ("train.gradient_accumulation_steps", rows * steps))
        found.append((both, "the same training, slower"))
    method = METHODS.get(job.train.method)
    copied = job.adapter.leaves_model and method and method.reference and not options.get(BEFORE)
    if copied and not options.get("sync_ref_model"):
        found.append((((f"train.{BEFORE}", True),), "the reference is asked once, before training"))
    if "8bit" not in str(options.get("optim", "")):
        found.append(((("train.optim", "adamw_8bit"),), "slightly other steps"))
    if not job.adapter.leaves_model and not job.model.bits and not facts.quantized:
        found.append(((("model.load_in_4bit", True),), "the base is rounded to 4 bit"))
    if job.adapter.leaves_model:
        found.append(((("adapter.type", "lora"),), "an adapter is trained instead of whole weights"))
    if limit and limit >= 512:
        found.append(((("model.max_seq_length", limit // 2),), "longer rows are cut"))
    return found


def with_changes(job: Job, changes: tuple[tuple[str, Any], ...]) -> Job:
    """Return a job with changes, as the plan would settle it with them."""
    decisions = [Decision(key, value, "") for key, value in changes if key != "adapter.type"]
    if dict(changes).get("adapter.type"):  # the other keys of [adapter] are open under "none"
        job = job.model_copy(update={"adapter": AdapterTable(type=dict(changes)["adapter.type"])})
        # Without every weight to train, the base needs no 32 bit: rules.precision.
        half = "bfloat16" if job.train.options.get("bf16") else "float16" if job.train.options.get("fp16") else None
        decisions += [Decision("model.dtype", half, "")] if half else []
    return settle(job, decisions)


def refused(machine: Machine, job: Job, facts: ModelFacts) -> bool:
    """Whether a job could not be run here, whatever memory it takes."""
    rounds = job.model.bits or "8bit" in str(job.train.options.get("optim", ""))
    if rounds and "bitsandbytes" not in machine.versions:
        return True
    return bool(cannot_load(machine, job, facts) or cannot_train(machine, job, facts) or contradicts_itself(job))


def contradicts_itself(job: Job) -> bool:
    """Whether the arguments of a job's trainer contradict each other, as far as this plugin has the method."""
    method = METHODS.get(job.train.method)
    if method is None:
        return False
    known = defaults(job.adapter.type, method.config)
    values = known | {name: value for name, value in job.train.options.items() if name in known}
    return any(mistake for check in CHECKS for mistake in check(values))
