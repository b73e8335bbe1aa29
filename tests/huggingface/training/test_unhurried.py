"""No step waits for the device between two logs, and what is logged is what TRL logs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from forge_huggingface.batches import tokens
from forge_huggingface.batches.tokens import TokenCollator
from forge_huggingface.training.recipes.unhurried import Unhurried
from forge_huggingface.training.steady import Steady
from support.projects import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.looking import VisionProject


LOGGED = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")


class Waits(TorchDispatchMode):
    """Counts what reads a number of a tensor, for which a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}:
            self.count += 1
        return function(*args, **(kwargs or {}))


class Watching(TrainerCallback):  # type: ignore[misc]
    """Notes how often a step waited, from its beginning to its end, before it is logged."""

    def __init__(self) -> None:
        self.mode: Waits | None = None
        self.steps: list[int] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.mode = Waits()
        self.mode.__enter__()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        assert self.mode is not None
        self.mode.__exit__(None, None, None)
        self.steps.append(self.mode.count)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    from forge_huggingface.training import train

    found, make = Watching(), train.make_trainer

    def watched(*arguments: Any) -> Any:
        trainer = make(*arguments)
        trainer.add_callback(found)
        return trainer

    monkeypatch.setattr(train, "make_trainer", watched)
    return found


@pytest.mark.parametrize("form", ["padding_free", "packing"])
def test_no_step_waits_for_the_device(
    tmp_path: Path, tiny_model: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    # Every batch end to end: for a padded one transformers itself looks into the mask, until a kernel takes it away.
    monkeypatch.setattr(tokens, "WORTH", 10**6)
    project = Project(tmp_path / "p", tiny_model)
    # Of trl 1.14's losses, the one in chunks reads a number itself; forge replaces it where there is a device.
    project.write(data={form: True}, train={"logging_steps": 4, "loss_type": "nll", "save_steps": 4})
    done = project.perform()
    assert done.code == 0, done.printed
    assert watching.steps == [0, 0, 0, 0]


@pytest.mark.parametrize("loss_type", ["nll", "chunked_nll"])
def test_what_is_logged_is_what_trl_logs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    project = Project(tmp_path / "p", tiny_model)
    project.write(data={"eval_size": 4}, train={"logging_steps": 2, "loss_type": loss_type, "max_steps": 6})
    ours = project.perform().of_kind("step")
    monkeypatch.setattr(Unhurried, "_simple", lambda *_: False)  # TRL's own way, number by number
    theirs = project.perform().of_kind("step")
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert {name: one[name] for name in LOGGED} == {name: other[name] for name in LOGGED}


def test_tokens_of_rows_with_images_are_counted_as_trl_counts_them(
    seeing: VisionProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeing.write(train={"logging_steps": 1, "max_steps": 2})
    ours = seeing.perform()
    assert ours.code == 0, ours.printed
    monkeypatch.setattr(Unhurried, "_simple", lambda *_: False)
    theirs = seeing.perform()
    assert [each["num_tokens"] for each in ours.of_kind("step")] == [
        each["num_tokens"] for each in theirs.of_kind("step")
    ]
    assert ours.of_kind("speed")[0]["tokens_per_second"]


def test_the_fill_of_a_batch_is_no_token(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(form: dict[str, Any]) -> list[tuple[float, float]]:
        project = Project(tmp_path / str(len(form)), tiny_model)
        project.write(data=form, train={"include_num_input_tokens_seen": "non_padding"})
        done = project.perform()
        assert done.code == 0, done.printed
        return [(each["num_tokens"], each["num_input_tokens_seen"]) for each in done.of_kind("step")]

    padded = numbers({})
    flat = TokenCollator._flat
    monkeypatch.setattr(TokenCollator, "_flat", lambda self, *rest: flat(replace(self, rounded=True), *rest))
    assert numbers({"padding_free": True}) == padded


def test_a_loss_that_is_not_finite_is_left_out_of_the_mean_as_the_trainer_does(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    step, calls = SFTTrainer.training_step, iter(range(100))

    def broken(self: Any, *arguments: Any, **options: Any) -> Any:
        loss = step(self, *arguments, **options)
        return loss * float("nan") if next(calls) == 3 else loss  # the third step's; the probe takes one before

    monkeypatch.setattr(SFTTrainer, "training_step", broken)
    project = Project(tmp_path / "p", tiny_model)
    project.write(train={"logging_steps": 4, "logging_nan_inf_filter": True})
    ours = project.perform().losses
    calls = iter(range(100))
    for name in ("training_step", "train"):  # the trainer's own way
        monkeypatch.delattr(Steady, name)
    assert project.perform().losses == ours
    assert math.isfinite(ours[0])


def test_held_out_losses_are_evaluated_with_the_filter_that_the_job_asks_for(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    evaluate, seen = Trainer.evaluate, []

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(self.args.logging_nan_inf_filter)
        return evaluate(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "evaluate", watched)
    project = Project(tmp_path / "p", tiny_model)
    for wanted in (True, False):
        seen.clear()
        train = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "logging_nan_inf_filter": wanted}
        project.write(data={"eval_size": 4}, train=train)
        assert project.perform().code == 0
        assert set(seen) == {wanted}


@pytest.mark.parametrize("adapter", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_a_kernel_that_peft_would_never_call_is_told(tmp_path: Path, tiny_model: Path, adapter: dict[str, Any]) -> None:
    project = Project(tmp_path / "p", tiny_model)
    project.write(adapter=adapter, train={"max_steps": 1, "kernels": ["lora"]})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.of_kind("trainer")[0]["kernels"] == {}
    assert any("kernels: lora is not used" in note["message"] for note in done.of_kind("note"))
