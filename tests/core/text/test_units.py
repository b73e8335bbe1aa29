"""Numbers as people say them."""

from __future__ import annotations

import pytest

from forge.text.units import clock


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (187, "3:07"), (7500, "2:05:00"), (59.6, "1:00")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text
