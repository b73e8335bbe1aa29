"""Over how many processes a job is planned, and what stands in the way."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from forge.api.plan import Training
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.errors import JobError, PlanError, RunError
from forge.job.read import parse
from forge.job.tables import LaunchTable
from forge.machine.presets import PRESETS
from forge.parent.resume import check_number
from forge.planning.renewing import respread
from support.planning import BASE, CUDA, FACTS, planner, reasons

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

FOUR = replace(CUDA, accelerators=CUDA.accelerators * 4)
CPU = PRESETS["linux-cpu"]
HUGGINGFACE = f'{BASE}[use]\nbackend = "huggingface"\n'


@pytest.fixture
def plan(catalogue: Catalogue) -> Callable[..., Any]:
    return planner(catalogue)


def share(plan: Training) -> tuple[int, int]:
    """Return rows of a batch and batches of a step."""
    return tuple(plan.decided(f"train.{key}") for key in ("per_device_train_batch_size", "gradient_accumulation_steps"))  # type: ignore[return-value]


def test_a_job_takes_all_gpus_in_sight_and_keeps_the_rows_of_its_step(plan: Any) -> None:
    made = plan(HUGGINGFACE, FOUR)
    assert made.launch.world_size == 4
    assert made.launch.shard == "none"
    assert reasons(made)["launch.processes"] == "4 GPUs are in sight"
    rows, steps = share(made)
    assert rows * steps == 8
    assert steps % 4 == 0


def test_where_a_step_cannot_be_shared_by_all_gpus_it_takes_fewer_and_says_why(plan: Any) -> None:
    made = plan(f"{HUGGINGFACE}[train]\nbatch_size = 6\n", FOUR)
    assert made.launch.world_size == 3
    assert "a step has 6 rows" in reasons(made)["launch.processes"]
    assert "4 processes cannot share evenly" in reasons(made)["launch.processes"]


def test_what_trains_in_one_process_leaves_the_other_gpus_idle_with_its_reason(plan: Any) -> None:
    made = plan(BASE, FOUR, replace(FACTS, task="seq2seq"))
    assert made.launch.world_size == 1
    assert "a process for each of them cannot be" in reasons(made)["launch.processes"]
    assert "1 of 4 GPUs is used, and 3 more are idle" in made.notes


def test_one_gpu_and_no_gpu_are_no_question(plan: Any) -> None:
    assert "launch.processes" not in reasons(plan())
    assert plan().launch.world_size == 1
    assert plan(machine=CPU).launch.world_size == 1
    assert plan(f"{BASE}[train]\nuse_cpu = true\n", FOUR).launch.world_size == 1


def test_a_plan_is_the_same_job_whatever_it_is_spread_over(plan: Any) -> None:
    spread = plan(f"{HUGGINGFACE}[launch]\nprocesses = 2\n", CPU)
    assert spread.launch.world_size == 2
    assert spread.job_digest == plan(HUGGINGFACE, CPU).job_digest


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("per_device_train_batch_size = 8", "a step has 8 rows in 1 batch of 8, which 2 processes cannot share evenly"),
        ("per_device_train_batch_size = 8", "write per_device_train_batch_size = 4, or batch_size = 16"),
        ("gradient_accumulation_steps = 3", "a step has 24 rows in 3 batches of 8"),
        ("batch_size = 3", "write batch_size = 2 or 4"),
    ],
)
def test_a_step_that_the_named_processes_cannot_share_is_refused_with_the_nearest_numbers(
    plan: Any, keys: str, says: str
) -> None:
    with pytest.raises(JobError, match=r"launch\.processes") as raised:
        plan(f"{HUGGINGFACE}[train]\n{keys}\n[launch]\nprocesses = 2\n", CPU)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ('method = "grpo"\nloss_type = "bnpo"', "is a mean over the tokens of a batch, into which answers are mixed"),
        ('method = "grpo"\nsteps_per_generation = 3', "2 processes cannot share 3 batches of answers evenly"),
        ('method = "grpo"\nuse_vllm = true', "vLLM in several processes has not been tried"),
        ('train_sampling_strategy = "batch_rebalance"', "it gives each number of processes other batches"),
    ],
)
def test_what_would_not_be_the_same_in_several_processes_is_refused(plan: Any, train: str, says: str) -> None:
    reward = '[[train.reward]]\nuse = "math_answer"\n' if "grpo" in train else ""
    with pytest.raises(PlanError) as raised:
        plan(f"{HUGGINGFACE}[train]\nbatch_size = 16\n{train}\n{reward}[launch]\nprocesses = 2\n", CPU)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("machine", "launch", "says"),
    [
        (FOUR, "processes = 8", "4 GPUs are in sight, and each process uses one of its own; write 4 or less"),
        (PRESETS["windows-cuda-cpu-torch"], "processes = 2", "forge trains in one process on Windows"),
        (PRESETS["macos"], "processes = 2", "Apple's GPU is used by one process"),
        (FOUR, 'processes = 1\nshard = "full"', 'shard = "full" needs several processes'),
    ],
)
def test_what_a_machine_cannot_run_is_refused_at_the_key(plan: Any, machine: Any, launch: str, says: str) -> None:
    with pytest.raises(JobError) as raised:
        plan(f"{HUGGINGFACE}[launch]\n{launch}\n", machine)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("[model]\nload_in_4bit = true", "stay whole on each GPU, so nothing is gained"),
        ("[train]\nuse_liger_kernel = true", "leave it out"),
        ('[train]\noptim = "adamw_8bit"', "is not known to train a part of a weight as it trains the whole"),
        ("[adapter]\nuse_dora = true", "use_dora measures whole weights"),
        ('[adapter]\nmodules_to_save = ["lm_head"]', "get other gradients than in one process"),
        ('[model]\ndtype = "bfloat16"\n[adapter]\ntype = "none"', "trains 16-bit weights in 32 bit under bf16"),
        ('[train]\nkernels = ["rope"]', "kernels: rope would take whole weights"),
        ('[train]\nmethod = "kto"', "fsdp2"),
    ],
)
def test_a_model_that_cannot_be_sharded_is_refused_with_the_reason(plan: Any, keys: str, says: str) -> None:
    model, _, rest = keys.partition("[model]\n")[2].partition("[") if keys.startswith("[model]") else ("", "", keys[1:])
    text = HUGGINGFACE.replace('id = "m"\n', f'id = "m"\n{model}\n') + (f"[{rest}\n" if rest else "")
    with pytest.raises(PlanError) as raised:
        plan(f'{text}[launch]\nprocesses = 2\nshard = "full"\n', FOUR)
    assert says in str(raised.value)


@pytest.mark.parametrize(("adapter", "used"), [("lora", "none"), ("none", ["swiglu", "norm", "rope", "mask"])])
def test_kernels_that_read_weights_are_not_used_on_parts_of_them(plan: Any, adapter: str, used: Any) -> None:
    made = plan(f'{HUGGINGFACE}[adapter]\ntype = "{adapter}"\n[launch]\nprocesses = 2\nshard = "full"\n', FOUR)
    decided = {each.key: each for each in made.decisions}["train.kernels"]
    assert decided.value == used
    assert "each process holds a part of the weights" in decided.reason


@pytest.mark.parametrize(
    ("keys", "launch", "machine", "says"),
    [
        ("", {"processes": 1}, CPU, None),
        ("[train]\ngradient_accumulation_steps = 4", {"processes": 4}, CPU, None),
        ("[train]\ngradient_accumulation_steps = 2", {"processes": 4}, CPU, "4 cannot share evenly"),
        ("[adapter]\nlora_dropout = 0.1", {"processes": 1}, CPU, "lora_dropout draws random numbers"),
        ('[train]\nmethod = "distill"\nteacher_model_name_or_path = "t"', {"processes": 1}, CPU, "draws the answers"),
        ("", {}, replace(CUDA, accelerators=CUDA.accelerators[:1]), None),
        ('[adapter]\ntype = "none"\n[launch]\nshard = "full"', {"processes": 1}, CPU, "one process does not read"),
    ],
)
def test_a_run_goes_on_in_another_number_of_processes_where_it_is_exact(
    plan: Any, keys: str, launch: dict[str, Any], machine: Any, says: str | None
) -> None:
    text = f"{HUGGINGFACE}{keys}\n" + ("" if "[launch]" in keys else "[launch]\n") + "processes = 2\n"
    text = text if launch else f"{HUGGINGFACE}"
    made = plan(text, CPU if launch else replace(CUDA, accelerators=CUDA.accelerators[:1] * 2))
    assert made.launch.world_size == 2
    again = partial(respread, made, LaunchTable(**launch), machine)
    if says is None:
        assert again().launch.world_size == launch.get("processes", 1)
        return
    with pytest.raises(RunError) as raised:
        again()
    assert says in str(raised.value)
    assert "it began in 2" in str(raised.value)


@pytest.mark.parametrize(
    ("key", "machine", "says"),
    [
        ('train_sampling_strategy = "group_by_length"', CPU, None),
        ('train_sampling_strategy = "batch_rebalance"', CPU, "batch_rebalance"),
        ("", CUDA, "1 GPU is in sight, and each process uses one of its own"),
    ],
)
def test_what_could_not_have_begun_in_so_many_processes_does_not_go_on_in_them(
    plan: Any, catalogue: Catalogue, tmp_path: Path, key: str, machine: Any, says: str | None
) -> None:
    text = f"{BASE}[train]\nper_device_train_batch_size = 1\ngradient_accumulation_steps = 8\n{key}\n"
    made = plan(text, machine)
    folder = RunFolder.create(tmp_path, parse(text, "job.toml", tmp_path, PluginKeys(catalogue)))
    folder.add_plan(made)
    again = respread(made, LaunchTable(processes=2), machine)
    assert again.launch.world_size == 2
    if says is None:
        check_number(folder, again, catalogue, machine)
        return
    with pytest.raises(RunError, match=f"the run cannot go on in 2 processes: .*{says}"):
        check_number(folder, again, catalogue, machine)


def test_unsloth_says_why_it_shards_nothing_and_goes_to_no_second_node() -> None:
    plan = planner(discover())
    for launch, says in (('shard = "full"', "Unsloth shards no model"), ("nodes = 2", "the GPUs of one node")):
        text = f'{BASE}[use]\nbackend = "unsloth"\n[launch]\nprocesses = 2\n{launch}\n'
        unsloth = {
            "unsloth": "2026.10.7",
            "unsloth-zoo": "2026.10.7",
            "transformers": "5.17.0",
            "trl": "1.14.2",
            "datasets": "4.8.0",
        }
        two = replace(CUDA, accelerators=CUDA.accelerators * 2, versions={**CUDA.versions, **unsloth})
        with pytest.raises(PlanError) as raised:
            plan(text, two)
        assert says in str(raised.value)


def test_a_lock_leaves_open_what_the_job_left_open(plan: Any) -> None:
    from forge.disk.joblock import lock_text
    from forge.job.decisions import settle

    made = plan(HUGGINGFACE, FOUR)
    assert 'processes = "auto"' in lock_text(settle(made.asked(), made.decisions), made, "m")
