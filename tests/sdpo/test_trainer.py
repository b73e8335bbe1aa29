"""The trainer on a tiny model: its loss, what it is a mean over, its teacher, and a batch without any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from forge.api import ForgeError, RunError, UsageError
from forge_sdpo import head
from forge_sdpo.shares import shares
from forge_sdpo.teacher import FILE
from forge_sdpo.trainer import SDPOTrainer, _AfterStep
from support.sdpo import reference, two_processes
from support.sdpo.worlds import fixed_rollouts, load, trainer


def first_batch(made: SDPOTrainer) -> dict[str, torch.Tensor]:
    """The first micro-batch, as training would see it."""
    made.model.train()
    batch = next(iter(made.get_train_dataloader()))
    return made._prepare_inputs(batch)


def logits_of(made: SDPOTrainer, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
    """What the model's own forward pass says of the last tokens."""
    return made.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -keep - 1 : -1]


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean"])
def test_the_trainers_loss_is_the_references(tmp_path, aggregation):
    settings = {"alpha": 0.5, "distillation_topk": 9, "aggregation": aggregation, "teacher": "frozen"}
    made = trainer(
        tmp_path, load(tmp_path, dtype=torch.float64), rollouts=fixed_rollouts, settings=settings, temperature=0.5
    )
    with torch.no_grad():  # a teacher that is not the student
        for parameter in made.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    inputs = first_batch(made)
    loss = made.compute_loss(made.model, inputs)
    keep = inputs["completion_ids"].size(1)
    join = {
        who: [torch.cat([inputs[f"{who}_{part}"], inputs[f"completion_{part}"]], 1) for part in ("ids", "mask")]
        for who in ("prompt", "teacher")
    }
    student = logits_of(made, *join["prompt"], keep)
    with made.teacher.place(held=True), torch.no_grad():
        teacher = logits_of(made, *join["teacher"], keep)
    flat = (-1, student.shape[-1])
    each, slopes = reference.token_losses(
        student.detach().reshape(flat).numpy(),
        teacher.reshape(flat).numpy(),
        inputs["completion_ids"].reshape(-1).numpy(),
        alpha=0.5,
        topk=9,
        temperature=0.5,
    )
    mask, taught = inputs["completion_mask"].numpy(), inputs["teacher_mask"].any(1).numpy()
    weight = reference.weights(mask, taught, aggregation).reshape(-1)
    assert abs(loss.item() - (weight * each).sum()) <= 1e-6

    loss.backward()
    found = {name: p.grad.clone() for name, p in made.model.named_parameters()}
    made.model.zero_grad()
    student.backward(torch.tensor(weight[:, None] * slopes).reshape(student.shape))
    for name, parameter in made.model.named_parameters():
        assert (found[name] - parameter.grad).abs().max() <= 1e-6, name


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean"])
def test_shares_are_the_references_weights(aggregation):
    random = np.random.default_rng(0)
    mask = (np.arange(6) < random.integers(1, 7, 8)[:, None]).astype(float)
    taught = np.array([1.0, 0, 1, 1, 0, 0, 1, 1])
    distilled = torch.tensor(mask * taught[:, None]).bool()
    window = torch.tensor([distilled.sum(), mask.sum(), 8.0])
    found, _ = shares(torch.tensor(mask).bool(), distilled, aggregation, window)
    np.testing.assert_allclose(found.numpy(), reference.weights(mask, taught, aggregation), rtol=1e-6)


@pytest.mark.parametrize(
    "settings", [{}, {"aggregation": "sequence-mean"}, {"policy_weight": 0.5, "objective": "sampled"}]
)
def test_accumulation_does_not_change_the_step(tmp_path, settings):
    def norm(size: int, steps: int) -> float:
        made = trainer(
            tmp_path,
            load(tmp_path),
            rollouts=fixed_rollouts,
            settings=settings,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
        )
        made.train()
        return made.state.log_history[0]["grad_norm"]

    assert norm(4, 8) / norm(32, 1) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(tmp_path):
    load(tmp_path)
    one = [two_processes.step(tmp_path, *case) for case in two_processes.CASES]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, two_processes.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "found.json").read_text())
    for alone, together in zip(one, two, strict=True):
        assert together["processes"] == 2
        assert together["grad_norm"] / alone["grad_norm"] == pytest.approx(1.0, abs=0.02)
        assert together["loss"] == pytest.approx(alone["loss"], rel=0.02)
        assert any(alone["teachers"].values())
        assert together["teachers"] == alone["teachers"]  # demonstrations are chosen by the right rewards on both


def test_a_batch_without_teachers_has_no_loss_and_the_run_goes_on(tmp_path):
    made = trainer(tmp_path, load(tmp_path), score=lambda prompts, **_: [0.0] * len(prompts), max_steps=2)
    inputs = first_batch(made)
    loss = made.compute_loss(made.model, inputs)
    loss.backward()
    assert loss.item() == 0
    for name, parameter in made.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name
    made.model.zero_grad()
    made.guards.without = 0
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    made.train()
    steps = [log for log in made.state.log_history if "loss" in log]
    assert [log["loss"] for log in steps] == [0, 0]
    assert [log["grad_norm"] for log in steps] == [0, 0]
    assert [log["sdpo/with_teacher"] for log in steps] == [0, 0]
    assert [log["sdpo/batches_without_teacher"] for log in steps] == [1, 2]
    assert all(torch.equal(before[name], p) for name, p in made.model.named_parameters())


def test_a_run_that_never_has_a_teacher_is_stopped_with_the_reason(tmp_path):
    made = trainer(
        tmp_path,
        load(tmp_path),
        score=lambda prompts, **_: [0.25] * len(prompts),
        max_steps=9,
        settings={"teacher_patience": 3},
    )
    with pytest.raises(ForgeError) as caught:
        made.train()
    assert made.state.global_step == 2
    assert "3 batches" in caught.value.what
    assert "highest summed reward was 0.25" in caught.value.why
    assert "success_reward_threshold = 1" in caught.value.why


def falling():
    """A reward that is 1 for two batches and 0 after them."""
    calls = []

    def score(prompts, **_):
        calls.append(len(prompts))
        return [1.0 if len(calls) <= 2 else 0.0] * len(prompts)

    return score


def test_a_run_that_collapses_is_stopped(tmp_path):
    settings = {"reward_patience": 2, "dont_reprompt_on_self_success": False}
    made = trainer(tmp_path, load(tmp_path), score=falling(), max_steps=9, settings=settings)
    with pytest.raises(ForgeError, match="collapsed at step 4") as caught:
        made.train()
    assert "fell from 1 to 0" in caught.value.why


def test_a_collapse_ends_a_run_that_has_its_best_weights(tmp_path):
    settings = {"reward_patience": 2, "dont_reprompt_on_self_success": False}
    made = trainer(tmp_path, load(tmp_path), score=falling(), max_steps=9, settings=settings)
    said = []
    made.warn = said.append
    made.args.load_best_model_at_end, made.state.best_global_step = True, 1  # as evaluations would have it
    for reward in (1.0, 1.0, 0.0, 0.0):
        made.guards.batch(taught=1, rewards=[reward], threshold=1.0, feedback=0)
        _AfterStep(made).on_step_end(made.args, made.state, made.control)
    assert made.control.should_training_stop
    assert "fell from 1 to 0; step 1 was the best" in said[0]


@pytest.mark.parametrize("kind", ["ema", "trust-region", "frozen", "live"])
@pytest.mark.parametrize("case", ["full", "fresh adapter", "trained adapter", "only in memory"])
def test_the_teacher_begins_as_the_student(tmp_path, case, kind):
    model = load(tmp_path, lora="adapter" in case, fresh="trained" not in case)
    if case == "only in memory":  # weights and name that are on no disk
        model.config._name_or_path = ""
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    settings = {"teacher": kind} | ({"teacher_update_rate": 0.3} if kind in {"ema", "trust-region"} else {})
    made = trainer(tmp_path, model, rollouts=fixed_rollouts, settings=settings)
    inputs = first_batch(made)
    inputs |= {"teacher_ids": inputs["prompt_ids"], "teacher_mask": inputs["prompt_mask"]}
    mask = inputs["completion_mask"].bool()
    logits = made._teacher_logits(made.model, inputs, torch.ones(len(mask), dtype=torch.bool), mask)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    every = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        student = logits_of(made, ids, every, mask.size(1))[mask]
    torch.testing.assert_close(logits(0, int(mask.sum())), student, atol=2e-5, rtol=1e-5)


def test_only_the_adapter_is_held(tmp_path):
    made = trainer(tmp_path, load(tmp_path, lora=True))
    assert made.teacher.held
    assert all("lora_" in name for name in made.teacher.held)
    assert list(made.model.peft_config) == ["default"]
    size = sum(value.numel() for value in made.teacher.held.values())
    assert size < sum(p.numel() for p in made.model.parameters()) / 10


def test_an_average_in_bfloat16_moves(tmp_path):
    made = trainer(tmp_path, load(tmp_path, dtype=torch.bfloat16), settings={"teacher_update_rate": 0.01})
    teacher = made.teacher
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.mul_(1.01)
    start = teacher.distance()
    for _ in range(500):
        teacher.follow()
    assert teacher.distance() < 0.1 * start
    assert {value.dtype for value in teacher.average.values()} == {torch.float32}
    assert {value.dtype for value in teacher.held.values()} == {torch.bfloat16}


def test_the_average_moves_once_a_batch_of_rollouts(tmp_path):
    made = trainer(
        tmp_path,
        load(tmp_path),
        per_device_train_batch_size=8,
        steps_per_generation=4,
        gradient_accumulation_steps=2,
        max_steps=4,
        rollouts=fixed_rollouts,
    )
    calls = []
    follow = made.teacher.follow
    made.teacher.follow = lambda: (calls.append(made.state.global_step), follow())
    made.train()
    assert calls == [2, 4]
    assert made.teacher.distance() > 0


def test_older_rollouts_are_corrected_by_their_ratio(tmp_path):
    made = trainer(
        tmp_path, load(tmp_path), per_device_train_batch_size=16, steps_per_generation=2, rollouts=fixed_rollouts
    )
    inputs = first_batch(made)
    on_policy = made.compute_loss(made.model, inputs).item()
    inputs["old_per_token_logps"] = inputs["old_per_token_logps"] - 1.0  # the student has become e times likelier
    assert made.compute_loss(made.model, inputs).item() == pytest.approx(2 * on_policy, rel=1e-4)  # clipped at 2


def test_a_checkpoint_has_the_teacher_and_a_model_folder_has_not(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "rollouts": fixed_rollouts}
    made = trainer(tmp_path, load(tmp_path, lora=True), **arguments)
    made.train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert (checkpoint / FILE).exists()
    made.model.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").rglob("*.safetensors")} == {"adapter_model.safetensors"}

    again = trainer(tmp_path, load(tmp_path, lora=True), **arguments)
    again._load_from_checkpoint(str(checkpoint))
    for name, value in made.teacher.held.items():
        assert torch.equal(again.teacher.held[name], value)
    assert again.guards.state() == made.guards.state()
    (checkpoint / FILE).unlink()
    with pytest.raises(RunError, match="no teacher"):
        again._load_from_checkpoint(str(checkpoint))


def test_rollouts_of_two_generations_in_a_step_are_refused(tmp_path):
    with pytest.raises(UsageError, match="steps_per_generation"):
        trainer(
            tmp_path,
            load(tmp_path),
            per_device_train_batch_size=16,
            steps_per_generation=1,
            gradient_accumulation_steps=2,
        )


@pytest.mark.parametrize("kind", ["frozen", "live", "trust-region"])
def test_mixed_precision_leaves_the_students_gradients_alone(tmp_path, kind):
    """autocast remembers weights that it has cast, those of the teacher and those without a gradient too."""

    def gradients(*, half: bool) -> dict[str, torch.Tensor]:
        made = trainer(
            tmp_path,
            load(tmp_path),
            rollouts=fixed_rollouts,
            bf16=half,
            settings={"teacher": kind, "objective": "full"},
        )
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in made.model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        inputs = first_batch(made)
        made.compute_loss(made.model, inputs).backward()
        return {name: p.grad for name, p in made.model.named_parameters()}

    whole, half = gradients(half=False), gradients(half=True)
    for name, slope in whole.items():
        assert half[name] is not None, name
        alike = torch.nn.functional.cosine_similarity(slope.flatten(), half[name].float().flatten(), dim=0)
        assert alike > 0.95, name


def test_dropout_is_off_for_the_teacher_and_on_for_the_student(tmp_path):
    made = trainer(tmp_path, load(tmp_path))
    made.model.train()
    made.model.model.layers[0].eval()
    before = [module.training for module in made.model.modules()]
    with made.teacher.speaks(made.model, None, held=True):
        assert not any(module.training for module in made.model.modules())
    assert [module.training for module in made.model.modules()] == before


def test_a_head_that_is_not_the_models_is_noticed(tmp_path):
    model = load(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    head.check(model, ids)
    model.config.logit_scale = 3.0  # the configuration says so, the model does not do it
    with pytest.raises(ForgeError, match="does not give its logits"):
        head.check(model, ids)
