"""What a person sees of a run."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console as RichConsole

from forge.api.event import (
    Adapted,
    AnswersShown,
    Collated,
    Custom,
    EvaluationDone,
    Event,
    ExportDone,
    Noted,
    Objected,
    Probed,
    StepLogged,
    TrainingDone,
    TrainingStarted,
    Writing,
    event_of,
)
from forge.cli.console import Console


def test_json_prints_one_object_a_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(as_json=True) as console:
        console.show(event_of({"kind": "step", "step": 1, "loss": 2.5}))
    assert capsys.readouterr().out == '{"kind": "step", "step": 1, "loss": 2.5}\n'


def test_steps_are_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.show(event_of({"kind": "training", "steps": 9, "from": 0}))
        console.show(event_of({"kind": "step", "step": 3, "of": 9, "loss": 2.5, "seconds_left": 61, "memory": 2**30}))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["train   9 steps", "        step 3/9  loss 2.5000  1.0 GiB  1:01 left"]


def test_rewards_and_answers_are_shown_where_a_method_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.show(
            event_of({"kind": "step", "step": 1, "of": 2, "loss": 0.5, "reward": 0.25, "rewards/margins": None})
        )
        answer = {"completion": "assistant: It\nis [two].", "rewards": {"sum": 1.0, "other": None}}
        console.show(event_of({"kind": "answers", "step": 1, "answers": [{"prompt": "user: 1+1", **answer}]}))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["        step 1/2  loss 0.5000  reward 0.25", "        “It is [two].” (sum 1)"]


ONLINE = {
    "reward": 0.5,
    "rewards/math/mean": 0.25,
    "rewards/form/mean": None,
    "rewards/form/std": 0.1,
    "frac_reward_zero_std": 0.25,
    "completions/clipped_ratio": 0.125,
    "entropy": 1.25,
    "kl": 0.0625,
}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (ONLINE, "reward 0.5 (math 0.25, form none)  75% of groups differ  12% cut  entropy 1.25  KL 0.0625"),
        (
            {"reward": None, "frac_reward_zero_std": 1.0, "grad_norm": 0.0},
            "no gradient  no reward  0% of groups differ",
        ),
        ({"completions/clipped_ratio": 1.0, "entropy": 0.0}, "100% cut"),  # no token of an answer counts
        ({"entropy": 1.0, "mean_token_accuracy": 0.5}, ""),
    ],
)
def test_what_tells_whether_answers_can_teach_is_in_the_line_of_a_step(
    capsys: pytest.CaptureFixture[str], values: dict[str, Any], words: str
) -> None:
    with Console() as console:
        console.show(event_of({"kind": "step", "step": 1, "of": 2, "loss": 0.0, **values}))
    assert capsys.readouterr().out.rstrip("\n") == f"        step 1/2  loss 0.0000{'  ' * bool(words)}{words}"


def test_a_loss_that_is_no_number_is_not_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.show(event_of({"kind": "step", "step": 1, "of": 2, "loss": None}))
    assert capsys.readouterr().out == "        step 1/2  loss nan\n"


def test_on_a_narrow_terminal_the_bar_is_whole_and_no_measure_is_cut() -> None:
    shown = io.StringIO()
    with Console() as console:
        console.rich, console.live = RichConsole(file=shown, force_terminal=True, width=90, soft_wrap=True), True
        console.show(event_of({"kind": "training", "steps": 9, "from": 0}))
        console.show(event_of({"kind": "step", "step": 3, "of": 9, "loss": 2.5, "seconds_left": 61, **ONLINE}))
    words = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", shown.getvalue()).split())
    for part in ("step 3/9", "loss 2.5000", "1:01 left", "math 0.25, form none", "75% of groups differ", "KL 0.0625"):
        assert part in words


def odd(kind: type[Event], *values: Any, **more: Any) -> Event:
    """Make an event of values of other types than it says: nobody checks those of a plugin."""
    return kind(*values, **more)


ODD = [
    odd(StepLogged, "three", loss="low"),
    odd(StepLogged, 1, tokens_per_second="many", memory={}),
    odd(Collated, "d", rows="many", tokens=5, supervised=3),
    odd(Collated, "d", sources=[{"path": "p"}], eval={"a": {}}),
    odd(TrainingStarted, "many"),
    odd(TrainingDone, "w", {"train_loss": "low"}),
    odd(ExportDone, "f", "o", {"a": {}}),
    odd(AnswersShown, 1, []),
    odd(EvaluationDone, 1, {}, {"f1": {"tuned": {}}}, [{}], {}, "f"),
    odd(Writing, "f", 1, 0, 3.0),
    odd(Adapted, 1, 0, [3]),
    odd(Probed, 1, 2, None),
    odd(Noted, 3),
    odd(Custom, "stage", more={}),
    odd(Custom, "data", more={"digest": object()}),
    odd(Custom, "__init__", more={"digest": object()}),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("event", ODD, ids=lambda event: event.kind)
def test_no_event_of_a_plugin_stops_the_console(
    event: Event, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(as_json=as_json) as console:
        console.show(event)
    said = capsys.readouterr().out
    assert said.strip() or event.kind == "__init__"
    if as_json:
        assert json.loads(said)["kind"] == event.kind


def test_what_a_preflight_objects_to_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.show(Objected("the template has no place for tools", "write another"))
    assert capsys.readouterr().out == "error   the template has no place for tools; write another\n"
