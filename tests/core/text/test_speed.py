"""What a run's time went into, from its events."""

from __future__ import annotations

from typing import Any

from forge.text.speed import Times

EVENTS: list[dict[str, Any]] = [
    {"kind": "preloaded", "seconds": 4.0, "time": 4.0},
    {"kind": "stage", "stage": "collate", "state": "started", "time": 4.0},
    {"kind": "stage", "stage": "collate", "state": "finished", "seconds": 1.0, "time": 5.0},
    {"kind": "stage", "stage": "train", "state": "started", "time": 6.0},
    {"kind": "training", "steps": 11, "time": 8.0},
    {
        "kind": "speed",
        "first": 3.0,
        "steps": 10,
        "seconds": 5.0,
        "saving": 1.0,
        "padded": 1250,
        "padding": 0.2,
        "tokens_per_second": 200.0,
        "flops": 4e14,
        "peak": 989e12,
        "share": 0.31,
    },
    {"kind": "stage", "stage": "train", "state": "finished", "seconds": 11.5, "time": 17.5},
    {"kind": "stage", "stage": "export", "state": "finished", "seconds": 2.0},
]


def test_time_and_speed_are_told_in_a_few_lines() -> None:
    parts = "import 4.0 s, collate 1.0 s, prepare 2.0 s, first step 3.0 s, later steps 5.0 s"
    assert Times(EVENTS).lines == [
        f"time        18 s: {parts}, checkpoints 1.0 s, save weights 0.5 s, export 2.0 s",
        "step        0.5 s, the first 3 s",
        "tokens      200 a second; 250 with padding, which is 20 %",
        "limit       31 % of 989 TFLOP/s in 16 bit went into tokens of rows (MFU)",
    ]


def test_of_an_unknown_device_the_work_is_told_without_a_share() -> None:
    speed = {key: value for key, value in EVENTS[5].items() if key not in {"peak", "share", "padding"}}
    facts = Times([*EVENTS[:5], speed]).facts
    assert facts["work"] == "400 TFLOP/s, padding included"
    assert facts["tokens"] == "200 a second"


def test_a_run_that_went_on_tells_of_its_last_training() -> None:
    assert Times([*EVENTS, *EVENTS]).seconds == Times(EVENTS).seconds
    assert Times([*EVENTS, *EVENTS[:3]]).lines == []


def test_damaged_events_are_no_fault_of_the_others() -> None:
    odd: list[dict[str, Any]] = [{"kind": "speed", "first": "x", "steps": None, "share": []}, {"kind": "stage"}, {}]
    assert Times([*odd, *EVENTS]).seconds == Times(EVENTS).seconds
