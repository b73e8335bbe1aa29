"""Numbers as people say them."""

from __future__ import annotations

import pytest

from forge.text.units import clock, counted, cut, percent


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (187, "3:07"), (7500, "2:05:00"), (59.6, "1:00")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(("share", "text"), [(0.856, "86 %"), (0.0, "0 %"), (0.004, "under 1 %"), (1.0, "100 %")])
def test_shares_are_for_people(share: float, text: str) -> None:
    assert percent(share) == text


def test_one_thing_is_not_several() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]


def test_what_is_cut_is_said_in_rows_and_in_tokens() -> None:
    assert cut(3, 0.86, 0.41) == "3 rows, 86 % of their tokens, 41 % of all"
    assert cut(1, 0.86, 0.001) == "1 row, 86 % of its tokens, under 1 % of all"
    assert cut(2, None, None) == "2 rows", "a run of 0.1 has counted no tokens"
