"""What memory decides: the fastest that fits, one step down after out-of-memory, and never another training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.discover import discover
from forge.errors import JobError
from forge.job.decisions import settle
from forge_huggingface.memory.estimate import estimate
from forge_huggingface.memory.fit import blind, fit, now
from forge_huggingface.memory.parts import bare
from forge_huggingface.methods import METHODS, splits
from forge_unsloth.estimate import KERNELS as UNSLOTH
from forge_unsloth.estimate import fit as unsloth
from support.measuring import llama, on_gpu
from support.planning import BASE, FACTS, planner

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts
    from forge.api.plan import Plan
    from forge.discovery.catalogue import Catalogue

GIB = 2**30
NEEDED = {
    "distill": 'teacher_model_name_or_path = "t"\n',
    "grpo": 'num_generations = 4\n[[train.reward]]\nuse = "length"\nargs = {max = 9}\n',
    "rloo": 'num_generations = 4\n[[train.reward]]\nuse = "length"\nargs = {max = 9}\n',
    "sdpo": 'num_generations = 4\n[[train.reward]]\nuse = "length"\nargs = {max = 9}\n',
}


def settled(plan: Plan) -> Job:
    return settle(plan.asked(), plan.decisions)


def taken(plan: Plan) -> tuple[int, int, int]:
    """Return every how many layers one is recomputed, the rows of a batch, and the batches of a step."""
    rung = now(settled(plan))
    return rung.every, rung.rows, rung.steps


def made(catalogue: Catalogue, machine: Machine, facts: ModelFacts, train: str = "", base: str = BASE) -> Plan:
    """Plan a job without forge's kernels, which take less, so that these numbers are those of docs/memory.md."""
    return planner(catalogue)(f'{base}[train]\nkernels = "none"\n{train}', machine, facts)


@pytest.mark.parametrize(
    ("size", "gib", "rows", "every"),
    [
        ("1b", 140, 4, 0),
        ("1b", 24, 4, 0),  # 18.7 GiB of 20.4
        ("1b", 20, 4, 4),
        ("1b", 16, 4, 2),
        ("1b", 8, 4, 1),
        ("8b", 140, 2, 0),
        ("8b", 40, 2, 2),
        ("8b", 24, 2, 1),
        ("8b", 16, 2, 1),  # nothing fits: the least
    ],
)
def test_no_more_layers_are_recomputed_than_the_memory_asks(
    catalogue: Catalogue, size: str, gib: int, rows: int, every: int
) -> None:
    plan = made(catalogue, on_gpu(gib * GIB), llama(size), f"per_device_train_batch_size = {rows}")
    assert taken(plan) == (every, rows, 1)
    reason = next(each.reason for each in plan.decisions if each.key == "train.gradient_checkpointing")
    assert "GiB free are taken" in reason
    found = plan.estimate
    assert found is not None
    assert found.process is not None
    if gib > 16:
        assert found.process <= 0.85 * gib * GIB
    note = next(part.note for part in found.parts if part.name == "activations")
    assert ("no gradient checkpointing" in note) is (every == 0)
    assert (" layers" in note) is (every > 1)


def test_what_others_hold_of_the_memory_counts(catalogue: Catalogue) -> None:
    machine = on_gpu(140 * GIB)
    busy = replace(machine, accelerators=(replace(machine.accelerators[0], free=16 * GIB),))
    assert taken(made(catalogue, machine, llama("1b"), "per_device_train_batch_size = 4"))[0] == 0
    assert taken(made(catalogue, busy, llama("1b"), "per_device_train_batch_size = 4"))[0] == 2


@pytest.mark.parametrize("value", ["true", "false"])
def test_what_the_job_says_is_done(catalogue: Catalogue, value: str) -> None:
    for gib in (140, 8):
        plan = made(catalogue, on_gpu(gib * GIB), llama("1b"), f"gradient_checkpointing = {value}")
        assert "train.gradient_checkpointing" not in {each.key for each in plan.decisions}
        assert settled(plan).train.options["gradient_checkpointing"] is (value == "true")


def test_a_job_that_says_how_to_recompute_recomputes(catalogue: Catalogue) -> None:
    plan = made(catalogue, on_gpu(140 * GIB), llama("1b"), "gradient_checkpointing_kwargs = { every_n_layers = 4 }")
    assert taken(plan)[0] == 4


def test_of_what_nobody_knows_all_layers_are_recomputed(catalogue: Catalogue) -> None:
    plan = made(catalogue, on_gpu(140 * GIB), FACTS)
    assert taken(plan) == (1, 8, 1)
    reason = next(each.reason for each in plan.decisions if each.key == "train.gradient_checkpointing")
    assert "not known beforehand" in reason
    pictures = replace(llama("1b"), task="vision")
    versions = {"pillow": "11.0", "torchvision": "1"}
    machine = on_gpu(140 * GIB)
    machine = replace(machine, versions={**machine.versions, **versions})
    assert taken(made(catalogue, machine, pictures))[0] == 1, "what its pictures take is unknown"


def test_a_cpu_has_half_of_what_is_free(catalogue: Catalogue) -> None:
    machine = replace(on_gpu(GIB), accelerators=(), memory=64 * GIB)
    rows = "per_device_train_batch_size = 1"
    assert taken(made(catalogue, machine, llama("1b"), rows))[0] == 0
    assert taken(made(catalogue, replace(machine, available=12 * GIB), llama("1b"), rows))[0] == 1


def test_the_rows_that_are_there_correct_what_the_plan_took(catalogue: Catalogue) -> None:
    machine = on_gpu(16 * GIB)
    plan = made(catalogue, machine, llama("1b"), "batch_size = 32")
    assert taken(plan)[1] < 8
    rows = {"longest": 100, "tokens": 32_000, "rows": 400}
    found = fit(machine, settled(plan), plan.facts, asked=plan.asked(), named=frozenset(plan.named), rows=rows)
    rung = now(settle(settled(plan), found))
    assert rung.every == 0
    assert rung.rows > taken(plan)[1]
    assert rung.rows * rung.steps == 32


@pytest.mark.parametrize("size", ["1b", "8b"])
@pytest.mark.parametrize("backend", ["huggingface", "unsloth", "blind"])
def test_after_out_of_memory_comes_what_takes_less_until_nothing_does(
    catalogue: Catalogue, size: str, backend: str
) -> None:
    function = {"huggingface": fit, "unsloth": unsloth, "blind": blind}[backend]
    machine, facts = on_gpu(141 * GIB), llama(size)
    plan = made(catalogue, machine, facts, "batch_size = 16")
    job, seen = settled(plan), list[Any]()
    for _ in range(12):
        rung = now(job)
        found = bare(machine, job, facts, UNSLOTH, None) if backend == "unsloth" else estimate(machine, job, facts)
        assert found is not None
        assert found.process is not None
        seen.append((rung, found.process))
        assert rung.rows * rung.steps == 16
        assert rung.every in ({0, 1} if backend != "huggingface" else range(9))
        less = [*function(machine, job, facts, asked=plan.asked(), named=frozenset(plan.named), failed=True)]
        if not less:
            break
        assert all("did not fit" in each.reason for each in less if each.key != "train.gradient_accumulation_steps")
        job = settle(job, less)
    sizes = [(process, rung.rows) for rung, process in seen]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(seen) <= 8, "as many attempts as a run has"
    last = seen[-1][0]
    assert last.every == 1
    assert last.rows == 1 or (backend == "unsloth" and last.rows == 2), "a pass of Unsloth's loss is never smaller"


def test_relief_leaves_what_the_user_wrote(catalogue: Catalogue) -> None:
    machine = on_gpu(24 * GIB)
    for text, kept in (
        ("per_device_train_batch_size = 8", "per_device_train_batch_size"),
        ("gradient_accumulation_steps = 2", "gradient_accumulation_steps"),
        ("gradient_checkpointing = false", "gradient_checkpointing"),
    ):
        plan = made(catalogue, machine, llama("8b"), text)
        job = settle(settled(plan), ())
        less = fit(machine, job, plan.facts, asked=plan.asked(), named=frozenset(plan.named), failed=True)
        assert f"train.{kept}" not in {each.key for each in less}, text


@pytest.mark.parametrize("method", [*METHODS, "sdpo"])
def test_a_step_has_the_rows_that_the_job_says_under_every_method(method: str) -> None:
    train = f'method = "{method}"\nbatch_size = 24\n{NEEDED.get(method, "")}'
    plan = made(discover({}), on_gpu(141 * GIB), llama("8b"), train)
    _, rows, steps = taken(plan)
    assert rows * steps == 24
    if not splits(method, settled(plan).train.options):
        assert (rows, steps) == (24, 1), "halves would be another training"


@pytest.mark.parametrize(
    ("train", "rows", "steps"),
    [
        ("batch_size = 32\nper_device_train_batch_size = 4", 4, 8),
        ("batch_size = 32\ngradient_accumulation_steps = 4", 8, 4),
        ("batch_size = 32\nper_device_train_batch_size = 4\ngradient_accumulation_steps = 8", 4, 8),
        ("batch_size = 7", 7, 1),
        ("per_device_train_batch_size = 'auto'", 8, 1),
        ("", 8, 1),
    ],
)
def test_the_batches_of_a_step(catalogue: Catalogue, train: str, rows: int, steps: int) -> None:
    plan = made(catalogue, on_gpu(141 * GIB), llama("1b"), train)
    assert taken(plan)[1:] == (rows, steps)


def test_a_large_batch_is_taken_as_far_as_it_is_faster(catalogue: Catalogue) -> None:
    large = taken(made(catalogue, on_gpu(141 * GIB), llama("1b"), "batch_size = 4096"))
    assert large[1] < 64, "a pass of this many tokens keeps the device busy"
    assert large[0] == 0


def test_sets_of_answers_are_made_of_whole_batches(catalogue: Catalogue) -> None:
    train = f'method = "grpo"\nbatch_size = 24\ngeneration_batch_size = 36\n{NEEDED["grpo"]}'
    _, rows, steps = taken(made(catalogue, on_gpu(24 * GIB), llama("1b"), train))
    assert rows * steps == 24
    assert 36 % rows == 0


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            "batch_size = 32\nper_device_train_batch_size = 6",
            "per_device_train_batch_size (6) does not divide batch_size (32); write batch_size = 30 or 36, or "
            "per_device_train_batch_size = 4 or 8",
        ),
        (
            "batch_size = 3\ngradient_accumulation_steps = 8",
            "gradient_accumulation_steps (8) does not divide batch_size (3); write batch_size = 8, or "
            "gradient_accumulation_steps = 3",
        ),
        (
            "batch_size = 32\nper_device_train_batch_size = 4\ngradient_accumulation_steps = 4",
            "batch_size (32) is not per_device_train_batch_size (4) x gradient_accumulation_steps (4) = 16",
        ),
        (
            'per_device_train_batch_size = "auto"\ngradient_accumulation_steps = 4',
            "write batch_size in place of gradient_accumulation_steps",
        ),
        ("batch_size = 0", "must be at least 1"),
        ('per_device_train_batch_size = "large"', "auto"),
        (f'method = "grpo"\nbatch_size = 10\n{NEEDED["grpo"]}', "num_generations (4) does not divide"),
        ('method = "kto"\nbatch_size = 1', "compares the rows of a batch"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_told_with_the_nearest(
    catalogue: Catalogue, train: str, said: str
) -> None:
    with pytest.raises(JobError) as caught:
        made(catalogue, on_gpu(24 * GIB), llama("1b"), train)
    assert said in str(caught.value)
