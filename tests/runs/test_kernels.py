"""forge's kernels in whole runs: every method learns the same with them, and goes on from a checkpoint as before."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.arguments.options import lean_nll
from forge_huggingface.arguments.tables import KERNELS
from support.projects import cut_after
from support.resuming import resumed
from support.rows import METHODS
from support.tiny_seq2seq import make_t5
from support.tiny_vlm import ARCHS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from support.looking import Projects
    from support.projects import Finished, Project

EVERY = list(KERNELS)
LAYERS = {"lora", "swiglu", "norm", "rope"}


def acting(done: Finished) -> dict[str, str]:
    """Return the parts that act, and on what."""
    assert done.code == 0, done.printed
    (trainer,) = done.of_kind("trainer")
    found: dict[str, str] = trainer["kernels"]
    return found


def steps(done: Finished) -> list[dict[str, float]]:
    """Return what each step measured, but for what the machine is like."""
    machine = {"time", "seconds_left", "memory", "tokens_per_second", "step_time"}
    return [
        {name: value for name, value in event.items() if name not in machine and isinstance(value, int | float)}
        for event in done.of_kind("step")
    ]


def assert_same(ours: Finished, theirs: Finished) -> None:
    for mine, other in zip(steps(ours), steps(theirs), strict=True):
        assert mine == pytest.approx(other, rel=2e-3, abs=2e-4, nan_ok=True)


def test_supervised_training_measures_the_same(project: Project) -> None:
    found = []
    for kernels in ("none", EVERY):
        project.write(train={"kernels": kernels, "gradient_checkpointing": True}, data={"eval_size": 4})
        found.append(project.perform())
    assert acting(found[0]) == {}
    assert acting(found[1]).keys() == set(EVERY)
    assert_same(found[1], found[0])
    for event in ("eval", "probe"):
        mine, other = (done.of_kind(event)[0] for done in reversed(found))
        for name in other.keys() & {"eval_loss", "eval_entropy", "eval_mean_token_accuracy", "loss"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in {"dpo", "grpo"} else pytest.mark.slow) for name in METHODS]
)
def test_every_method_measures_the_same(project: Project, rows: Callable[[Sequence[Any]], None], method: str) -> None:
    make, options = METHODS[method]
    rows(make())
    found = []
    for kernels in ("none", EVERY):
        project.write(train={"method": method, **options, "max_steps": 2, "kernels": kernels})
        found.append(project.perform())
    mine = acting(found[1])
    assert mine.keys() >= LAYERS
    assert ("mask" in mine) == (method in {"dpo", "kto", "reward", "classification"})
    assert ("loss" in mine) == (lean_nll() and method in {"dpo", "kto", "grpo", "rloo"})
    told = " ".join(note["message"] for note in found[1].of_kind("note"))
    assert all(f"kernels: {part} is not used" in told for part in set(EVERY) - mine.keys())
    assert_same(found[1], found[0])


@pytest.mark.parametrize("checkpointing", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_run_that_goes_on_ends_in_the_same_bits(project: Project, checkpointing: bool) -> None:
    project.write(train={"kernels": EVERY, "gradient_checkpointing": checkpointing})
    done = project.perform()
    assert acting(done).keys() == set(EVERY)
    path = done.folder.path / "adapter" / "adapter_model.safetensors"
    whole = path.read_bytes()
    cut_after(done.folder, 2)
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "arch", ["gemma3", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHS if arch != "gemma3")]
)
def test_the_language_part_of_a_model_that_sees(projects: Projects, arch: str) -> None:
    project, found = projects(arch), []
    for kernels in ("none", EVERY):
        project.write(train={"kernels": kernels, "max_steps": 2})
        found.append(project.perform())
    assert acting(found[1]).keys() >= {"lora", "swiglu", "norm", "loss"}
    assert_same(found[1], found[0])


def test_every_weight_is_trained_with_what_fits(project: Project) -> None:
    found = []
    for kernels in ("none", EVERY[2:]):
        project.write(adapter={"type": "none", "r": None, "lora_alpha": None}, train={"kernels": kernels})
        found.append(project.perform())
    assert acting(found[1]).keys() == {"swiglu", "norm", "rope", "mask"}
    assert_same(found[1], found[0])


@pytest.mark.skipif(lean_nll(), reason="TRL makes no logits under any loss since 1.15")
def test_a_loss_that_makes_all_logits_does_not_use_forges(project: Project) -> None:
    project.write(train={"kernels": EVERY, "loss_type": "nll", "max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert "loss" not in acting(done)
    assert any("loss is not used, this version of TRL" in note["message"] for note in done.of_kind("note"))


def test_a_model_with_an_encoder_is_the_libraries(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(project.folder / "model")
    make_t5(project.folder / "model")
    (project.folder / "rows.jsonl").write_text('{"prompt": "a b c", "completion": "c b a"}\n' * 8, encoding="utf-8")
    project.write(train={"kernels": EVERY, "max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert acting(done) == {}
    assert sum("the model has an encoder" in note["message"] for note in done.of_kind("note")) == len(EVERY)
