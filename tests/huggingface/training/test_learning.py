"""Runs in which nothing is learned: told within the first steps, with the reason, on screen, page and card."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge.api.event import event_of
from forge.cli.console import Console
from forge_huggingface.training.learning import PATIENCE, Learning, sums
from forge_huggingface.training.recipes.groups import alike
from forge_report.record import read_record
from forge_report.verdict import healthy, learned
from support.projects import cut_after, json_of, perform_in
from support.rows import ONLINE, asked, pairs, prompts, ratings, said

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Finished, Project

    Write = Callable[[Sequence[Any]], None]

REWARDS = """
def none(*, completions, **_):
    return [None for _ in completions]


def same(*, completions, **_):
    return [0.5 for _ in completions]


def length(*, completions, **_):
    return [len(each[-1]["content"]) / 100 for each in completions]
"""
KINDS = """
def kinds(*, completions, kind, **_):
    values = {"none": None, "alike": 0.5}
    return [values.get(each, index) for index, each in enumerate(kind)]
"""
NAN = float("nan")
CUT = {"mask_truncated_completions": True, "max_completion_length": 4}
NONE = "no answer had a reward, since every reward function returned None"
SAME = "all answers to a prompt had the same reward"
MASKED = "every answer was cut at max_completion_length = 4 and left out by mask_truncated_completions"
TEACHER = "no answer had a teacher, since no reward reached success_reward_threshold = 1 and no feedback was used"


def performed(project: Project, method: str, reward: str, **keys: Any) -> Finished:
    (project.folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    options = {**ONLINE, "max_steps": 6, "save_steps": 6, "reward": [{"use": f"./rewards.py:{reward}"}], **keys}
    project.write(train={"method": method, **options})
    done = project.perform()
    assert done.code == 0, done.printed
    return done


def screen(done: Finished) -> list[str]:
    """Return what a person sees of a run."""
    shown = io.StringIO()
    with redirect_stdout(shown), Console() as console:
        for event in done.events:
            console.show(event_of(event))
    return shown.getvalue().splitlines()


@pytest.mark.parametrize(
    ("method", "reward", "keys", "why"),
    [
        ("grpo", "none", {}, NONE),
        ("rloo", "none", {}, NONE),
        pytest.param("sdpo", "none", {}, NONE, marks=pytest.mark.slow),
        ("grpo", "same", {}, SAME),
        pytest.param("rloo", "same", {}, SAME, marks=pytest.mark.slow),
        ("sdpo", "same", {}, TEACHER),
        ("grpo", "length", CUT, MASKED),
        pytest.param("rloo", "length", CUT, MASKED, marks=pytest.mark.slow),
        pytest.param("sdpo", "length", CUT, MASKED, marks=pytest.mark.slow),
    ],
)
def test_answers_that_teach_nothing_are_told_with_the_reason_on_screen_page_and_card(
    project: Project, rows: Write, method: str, reward: str, keys: dict[str, Any], why: str
) -> None:
    rows(prompts())
    # So that no answer ends by itself, and all of them are cut.
    done = performed(project, method, reward, generation_kwargs={"suppress_tokens": [2]}, **keys)
    lines = screen(done)
    first = next(index for index, line in enumerate(lines) if line.startswith("warning nothing"))
    assert lines[first].startswith(f"warning nothing was learned in the first {PATIENCE} logged steps: {why}; ")
    assert "step 5/6" in lines[first - 2] + lines[first - 1]
    assert "no gradient" in lines[first - 1] + lines[first - 2]
    whole = f"nothing was learned: in all 6 logged steps {why}"
    assert f"warning {whole}" in lines
    card = (done.folder.path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"> **Warning:** {whole}." in card
    record = read_record(done.folder)
    worst = learned(record)[0]
    assert (worst.level, worst.text.lower()) == ("bad", f"{whole}.".lower())
    assert not [each.text for each in healthy(record) if "NaN" in each.text]


@pytest.mark.parametrize(
    ("method", "make", "keys"),
    [
        ("dpo", pairs, {}),
        pytest.param("kto", ratings, {}, marks=pytest.mark.slow),
        pytest.param("orpo", pairs, {}, marks=pytest.mark.slow),
        ("grpo", prompts, ONLINE),
    ],
)
def test_a_run_that_learns_is_not_doubted(
    project: Project, rows: Write, method: str, make: Any, keys: dict[str, Any]
) -> None:
    rows(make())
    project.write(train={"method": method, "max_steps": 6, "save_steps": 6, **keys})
    done = project.perform()
    assert done.code == 0, done.printed
    assert not [each for each in done.of_kind("warning") if "learned" in each["message"]]
    assert json_of(done.folder.path / "trained.json")["warnings"] == []


def test_weights_that_rounding_keeps_as_they_were_are_told(project: Project, rows: Write) -> None:
    rows([{"messages": asked(index) + said("the sea")} for index in range(8)])
    adapter = {"type": "none", "r": None, "lora_alpha": None}
    project.write(
        model={"dtype": "bfloat16"}, adapter=adapter, train={"max_steps": 6, "save_steps": 6, "learning_rate": 1e-12}
    )
    done = project.perform()
    assert done.code == 0, done.printed
    early, late = done.of_kind("warning")
    why = "since steps at a learning rate of 1e-12 are lost in rounding to bfloat16"
    assert early["message"] == f"no weight changed in the first 5 logged steps: {why}"
    assert late["message"] == f"nothing was learned: no weight changed, {why}"
    assert late["do"] == "raise [train] learning_rate, or train in float32"
    assert json_of(done.folder.path / "trained.json")["warnings"] == [late["message"]]


def test_a_learning_rate_of_zero_is_named_as_the_reason(project: Project, rows: Write) -> None:
    rows(pairs())
    project.write(train={"method": "dpo", "max_steps": 2, "save_steps": 2, "learning_rate": 0.0})
    done = project.perform()
    assert done.code == 0, done.printed
    (warning,) = done.of_kind("warning")
    assert warning["message"] == "nothing was learned: no weight changed, since the learning rate was 0"


def test_a_resumed_run_knows_what_was_learned_before(project: Project, rows: Write) -> None:
    rows(prompts())
    done = performed(project, "grpo", "none", max_steps=4, save_steps=2)
    cut_after(done.folder, 2)
    run, _ = project.prepare()
    again = perform_in(
        type(run)(folder=done.folder.path, plan=run.plan, resume=done.folder.checkpoints / "checkpoint-2"), done.folder
    )
    assert again.code == 0, again.printed
    last = again.of_kind("warning")[-1]["message"]
    assert last == f"nothing was learned: in all 4 logged steps {NONE}"


def test_a_run_that_learned_once_is_not_said_to_have_learned_nothing() -> None:
    model = torch.nn.Linear(2, 2)
    learning = Learning(model)
    assert [learning.see({"grad_norm": 0.0}, model) for _ in range(PATIENCE - 1)] == [None] * (PATIENCE - 1)
    assert learning.see({"grad_norm": 1.0}, model) is not None  # the weights of this one never change
    with torch.no_grad():
        model.weight[0, 0] += 1
    told = [learning.see({"grad_norm": 0.0}, model) for _ in range(2 * PATIENCE)]
    (warning,) = [each for each in told if each]
    assert warning.message == f"nothing was learned in the last {PATIENCE} logged steps: the gradient was exactly 0"
    assert learning.end(model) is None


@pytest.mark.parametrize(
    ("rewards", "apart", "wanted"),
    [
        ([[0.5], [0.5], [0.0], [1.0]], False, 0.5),
        ([[NAN], [NAN], [0.0], [1.0]], False, 0.5),  # TRL takes a group without rewards for one that differs
        ([[NAN], [1.0], [NAN], [NAN]], False, 1.0),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, NAN], [NAN, 0.0]], False, 1.0),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, NAN], [NAN, 0.0]], True, 0.5),
    ],
)
def test_groups_without_a_spread_of_rewards_are_counted(rewards: list[Any], apart: bool, wanted: float) -> None:
    found = torch.tensor(rewards)
    assert alike(found, torch.ones(found.shape[1]), 2, apart=apart) == wanted


@pytest.mark.parametrize("keys", [{}, {"scale_rewards": "batch"}])
def test_the_log_has_the_share_of_groups_that_teach_nothing(
    project: Project, rows: Write, keys: dict[str, Any]
) -> None:
    rows([{**row, "kind": ("none", "alike", "apart", "apart")[index % 4]} for index, row in enumerate(prompts(4))])
    (project.folder / "rewards.py").write_text(KINDS, encoding="utf-8")
    options = {
        **ONLINE,
        "per_device_train_batch_size": 8,
        "num_generations": 2,
        "reward": [{"use": "./rewards.py:kinds"}],
    }
    project.write(train={"method": "grpo", **options, "max_steps": 1, "save_steps": 1, **keys})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.of_kind("step")[0]["frac_reward_zero_std"] == 0.5


def test_a_gradient_that_is_no_number_is_told() -> None:
    model = torch.nn.Linear(2, 2)
    learning = Learning(model)
    for value in (float("nan"), float("inf")):
        learning.see({"grad_norm": value}, model)
    doubt = learning.end(model)
    assert doubt is not None
    assert doubt.message == "nothing was learned: in all 2 logged steps the gradient was infinite or no number"


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_the_smallest_change_of_a_weight_is_seen(kind: torch.dtype) -> None:
    model = torch.nn.Linear(300, 300).to(kind)
    before = sums(model)
    with torch.no_grad():
        model.weight[7, 11] = torch.nextafter(model.weight[7, 11], torch.tensor(9.0, dtype=kind))
    assert sums(model) != before


def test_a_checkpoint_that_does_not_know_the_beginning_leaves_the_question_open() -> None:
    model = torch.nn.Linear(2, 2)
    learning = Learning(model)
    learning.restore(None)
    learning.see({"grad_norm": 0.0}, model)
    assert learning.end(model) is None


def test_a_loss_that_is_no_number_is_shown_as_such(project: Project, rows: Write) -> None:
    rows(pairs())
    project.write(train={"method": "dpo", "max_steps": 3, "save_steps": 3, "learning_rate": 1e38})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.losses[-1] is None
    assert any("loss nan" in line for line in screen(done))
