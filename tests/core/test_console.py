"""What a person sees of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from forge.api.event import event_of
from forge.api.plan import Against, Verdict
from forge.cli.console import Console
from forge.text.plan import turned_down
from forge.text.units import clock


def plan(*verdicts: Verdict, taken: str = "huggingface") -> Any:
    return cast(Any, SimpleNamespace(steps=[SimpleNamespace(plugin=taken)], verdicts=verdicts))


def test_a_plugin_that_was_turned_down_is_told_once_with_the_reason_of_its_loader() -> None:
    said = turned_down(
        plan(
            Verdict("collate", "quick", "it makes other batches", Against.PROBE),
            Verdict("load", "quick", "needs an accelerator (cuda); there is none", Against.PROBE),
            Verdict("adapt", "quick", "needs quick's loader", Against.PROBE),
            Verdict("load", "other", "does not do text", Against.ABILITY),
            Verdict("load", "huggingface", "the only one that can", None),
        )
    )
    assert said == {"quick": "needs an accelerator (cuda); there is none"}


def test_a_plugin_that_serves_a_stage_is_not_turned_down() -> None:
    assert turned_down(plan(Verdict("load", "huggingface", "slow", Against.PROBE))) == {}


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (187, "3:07"), (7500, "2:05:00"), (59.6, "1:00")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text


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
