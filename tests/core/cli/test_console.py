"""What a person sees of a run."""

from __future__ import annotations

import pytest

from forge.api.event import event_of
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
