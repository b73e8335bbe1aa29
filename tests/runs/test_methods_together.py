"""Every method trains in several processes as it does in one: all that it logs is the same, not the loss alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk.events import read_events
from support.projects import Project
from support.resuming import untimed
from support.rows import METHODS, ONLINE, lists, numbers, prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    Rows = Callable[[Sequence[Any]], None]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes are looked for in /proc")

HERE = Path(__file__).parents[1] / "support" / "together"
FULL = {"type": "none", "r": None, "lora_alpha": None}
GROUPS: dict[str, Any] = {"num_generations": 8}  # more answers to a prompt than one process gives


def together(project: Project, *arguments: str, **environ: str) -> list[dict[str, Any]]:
    """Run the job with the changes of ``support/together``, and return what the trainer logged."""
    path = f"{HERE}:{os.environ.get('PYTHONPATH', '')}"
    project.forge("run", "job.toml", *arguments, PYTHONPATH=path, **environ)
    lines = [event for event in read_events(project.newest().events) if event["kind"] in {"step", "eval"}]
    return [{name: value for name, value in untimed(line).items() if isinstance(value, int | float)} for line in lines]


MIXED = {"kl", "entropy", "sdpo/gain", "sdpo/divergence"}
"""What an online method measures as means over the tokens of batches, into which its answers are mixed by chance."""


def hold_alike(one: list[dict[str, Any]], other: list[dict[str, Any]], *, but: AbstractSet[str] = frozenset()) -> None:
    """Hold what two runs logged against each other, by 1e-6 of each number, and 1e-5 of the norm of the gradient."""
    assert [line.keys() for line in one] == [line.keys() for line in other]
    for first, second in zip(one, other, strict=True):
        near = {
            name: pytest.approx(value, rel=1e-5 if name == "grad_norm" else 1e-6, abs=1e-6)
            for name, value in first.items()
        }
        assert {**second, **dict.fromkeys(but)} == {**near, **dict.fromkeys(but)}


def texts(count: int) -> list[dict[str, str]]:
    return [{"text": "one two " * (1 + each % 5)} for each in range(count)]


def case(
    method: str, *, fast: bool = False, rows: Any = None, adapter: Any = None, name: str = "", **train: Any
) -> Any:
    make, options = (rows, {}) if rows else METHODS[method]
    marks = () if fast else pytest.mark.slow
    return pytest.param(method, rows or make, {**options, **train}, adapter or {}, marks=marks, id=name or method)


@pytest.mark.parametrize(
    ("method", "make", "train", "adapter"),
    [
        case("sft", rows=texts),
        case("sft", rows=texts, adapter={"modules_to_save": ["lm_head"]}, name="sft-head"),
        case("dpo", fast=True),
        case("dpo", adapter=FULL, name="dpo-full"),
        case("dpo", precompute_ref_log_probs=True, name="dpo-precomputed"),
        case("kto"),
        case("kto", precompute_ref_log_probs=True, name="kto-precomputed"),
        case("orpo"),
        case("cpo"),
        case("reward"),
        case("classification"),
        case("classification", adapter=FULL, name="classification-full"),
        case("classification", rows=numbers, adapter=FULL, name="regression"),
        case("classification", rows=lists, adapter=FULL, name="multi-label"),
        # An adapter that does something, since the teacher is the model without it; and the likeliest token always.
        case("distill", top_k=1, adapter={"init_lora_weights": False}),
        case("grpo", fast=True, **GROUPS),
        case("grpo", loss_type="grpo", beta=0.1, num_iterations=2, name="grpo-of-two-passes", **GROUPS),
        case("rloo", **GROUPS),
        case("sdpo", rows=prompts, **{**ONLINE, **GROUPS}),
    ],
)
def test_a_method_is_the_same_in_two_processes(
    project: Project,
    rows: Rows,
    method: str,
    make: Callable[[int], Any],
    train: dict[str, Any],
    adapter: dict[str, Any],
) -> None:
    rows(make(16))
    more = {"per_device_train_batch_size": 2, **train, "gradient_accumulation_steps": 2, "logging_steps": 2}
    plugins = {"sdpo": {"success_reward_threshold": 0.0}} if method == "sdpo" else {}
    project.write(train={"method": method, **more}, adapter=adapter, plugins=plugins)
    one = together(project, FORGE_TESTS_ANSWERS="1")
    assert all(line["grad_norm"] for line in one)
    two = together(project, "--set", "launch.processes=2", FORGE_TESTS_ANSWERS="1")
    hold_alike(one, two, but=MIXED if method in {"grpo", "rloo", "sdpo"} else frozenset())


@pytest.mark.slow
def test_answers_last_as_many_steps_in_two_processes_as_in_one(project: Project, rows: Rows) -> None:
    """Which of them come into which of the steps is by chance, so that losses are not the same."""
    rows(prompts(16))
    more = {**ONLINE, **GROUPS, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
    project.write(train={"method": "grpo", **more})
    found = []
    for arguments in ((), ("--set", "launch.processes=2")):
        logged = together(project, *arguments, FORGE_TESTS_ANSWERS="1")
        found.append({line["step"]: line["reward"] for line in logged if "reward" in line})
    assert found[1] == pytest.approx(found[0])
    assert len(found[0]) == 2  # of four steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("dpo", 5),
        ("dpo", 6),
        ("reward", 5),
        ("reward", 6),
        ("kto", 5),
        ("kto", 6),
        ("orpo", 5),
        ("cpo", 6),
    ],
)
def test_held_out_rows_are_judged_in_two_processes_as_in_one(
    project: Project, rows: Rows, method: str, count: int
) -> None:
    """Whose last batch is smaller, or is of one process alone."""
    make, options = METHODS[method]
    rows(make(count + 12))
    more = {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.05}
    more |= {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_steps": 4}
    project.write(train={"method": method, **options, **more}, data={"eval_size": count})
    one, two = (together(project, *arguments) for arguments in ((), ("--set", "launch.processes=2")))
    assert any("eval_loss" in line for line in one)
    hold_alike(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("count", [6, 5])
def test_held_out_prompts_are_judged_in_two_processes_as_in_one(
    project: Project, rows: Rows, method: str, count: int
) -> None:
    """The answers to a prompt are both processes', of the last batch too, which may be half of one."""
    rows(prompts(22))
    more = {**ONLINE, **GROUPS, "gradient_accumulation_steps": 2, "max_steps": 1, "logging_steps": 1, "save_steps": 1}
    more |= {"num_generations_eval": 2, "per_device_eval_batch_size": 4, "eval_on_start": True}
    project.write(train={"method": method, **more}, data={"eval_size": count})
    found = []
    for arguments in ((), ("--set", "launch.processes=2", "--set", "train.per_device_eval_batch_size=2")):
        logged = together(project, *arguments, FORGE_TESTS_ANSWERS="1")
        found.append([line for line in logged if "eval_reward" in line])
    assert len(found[0]) == 2
    assert all(line["eval_reward"] > 0 for line in found[0])
    spread = {"eval_reward_std", "eval_rewards/length/std"}  # of a batch: it goes by how large that is
    hold_alike(*found, but=frozenset() if count == 6 else spread)
