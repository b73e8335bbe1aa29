"""What a person sees of a run."""

from __future__ import annotations

import json

import pytest

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


ODD = [
    StepLogged("three", loss="low"),  # type: ignore[arg-type]
    StepLogged(1, tokens_per_second="many", memory={}),  # type: ignore[arg-type]
    Collated("d", rows="many", tokens=5, supervised=3),  # type: ignore[arg-type]
    Collated("d", sources=[{"path": "p"}], eval={"a": {}}),
    TrainingStarted("many"),  # type: ignore[arg-type]
    TrainingDone("w", {"train_loss": "low"}),  # type: ignore[dict-item]
    ExportDone("f", "o", {"a": {}}),
    AnswersShown(1, []),
    EvaluationDone(1, {}, {"f1": {"tuned": {}}}, [{}], {}, "f"),
    Writing("f", 1, 0, 3.0),
    Adapted(1, 0, [3]),  # type: ignore[list-item]
    Probed(1, 2, None),  # type: ignore[arg-type]
    Noted(3),  # type: ignore[arg-type]
    Custom("stage", more={}),
    Custom("data", more={"digest": object()}),
    Custom("__init__", more={"digest": object()}),
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
