"""Events: a record for each kind, one line of JSON, and back."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

import pytest

from forge.api.event import EVENTS, Custom, Event, Noted, StepLogged, TrainingStarted, event_of
from forge.cli.console import Console


def line_values(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "kind"}


def sample(kind: type[Event]) -> Event:
    """Return an event of a kind with only what it must have."""
    given: dict[str, Any] = {
        each.name: {} if "Mapping" in str(each.type) else [] if "Sequence" in str(each.type) else 1
        for each in fields(kind)
        if each.default is MISSING and each.default_factory is MISSING
    }
    return kind(**given)


@pytest.mark.parametrize("kind", EVENTS.values(), ids=list(EVENTS))
def test_an_event_is_the_same_once_it_was_a_line(kind: type[Event]) -> None:
    event = sample(kind)
    line = json.loads(json.dumps({"kind": event.kind, **event.values}))
    again = event_of(line)
    assert type(again) is kind
    assert json.loads(json.dumps(again.values)) == line_values(line)
    assert EVENTS[event.kind] is kind
    assert kind.__doc__


def test_every_class_of_events_is_in_the_table() -> None:
    assert set(EVENTS.values()) == set(Event.__subclasses__()) - {Custom}


def test_what_a_trainer_logs_by_its_own_names_stands_beside_the_fields() -> None:
    event = event_of({"kind": "step", "time": 5.0, "step": 3, "of": 9, "loss": 0.5, "rewards/margins": 1.5})
    assert isinstance(event, StepLogged)
    assert (event.loss, event.more, event.time) == (0.5, {"rewards/margins": 1.5}, 5.0)
    assert event.values == {"step": 3, "of": 9, "loss": 0.5, "rewards/margins": 1.5}


def test_a_word_of_python_is_a_key_all_the_same() -> None:
    event = TrainingStarted(10, from_=4)
    assert event.values == {"steps": 10, "from": 4}
    assert event_of({"kind": "training", **event.values}) == event


@pytest.mark.parametrize(
    "line", [{"kind": "mlx/compiled", "seconds": 3}, {"kind": "training"}, {"kind": None}, {"message": "no kind"}]
)
def test_a_line_of_another_forge_or_a_plugin_is_kept_as_it_is_and_stops_no_console(
    line: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    event = event_of(line)
    assert isinstance(event, Custom)
    assert event.values == {key: value for key, value in line.items() if key != "kind"}
    with Console() as console:
        console.show(event)
    # One of forge's kinds without its values is shown as it is; a plugin's own is for its own.
    assert capsys.readouterr().out == ("training{}\n" if line.get("kind") == "training" else "")


def test_what_is_not_said_is_not_in_the_line() -> None:
    assert Noted("slow").values == {"message": "slow"}
