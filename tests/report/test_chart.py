"""Charts: axes that hold every value and end at round ones, lines that keep their peaks, gaps where there is none."""

from __future__ import annotations

import math
import re
import statistics
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forge_report.chart import BUCKETS, STRIPS, Chart, Line, draw
from forge_report.record import Series
from forge_report.scale import Scale, linear, logarithmic, nice, short, smooth, spread, thin

VALUES = st.lists(st.floats(min_value=-1e299, max_value=1e299, allow_subnormal=True), min_size=1, max_size=30)


def series(*values: float, every: int = 1) -> Series:
    return Series([every * (index + 1) for index in range(len(values))], list(values))


def chart(*lines: Line, **more: object) -> str:
    found = draw(Chart("Loss", lines, **more))  # type: ignore[arg-type]  # values of several types
    assert found is not None
    return found


def points(drawn: str, colour: int = 0, *, faint: bool = False) -> list[tuple[float, float]]:
    path = re.search(rf'<path d="([^"]*)" class="line {"faint " if faint else ""}s{colour}"', drawn)
    assert path
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) ([^ML]+)", path[1])]


@given(VALUES, st.booleans())
def test_an_axis_holds_every_value_and_has_ticks(values: list[float], zero: bool) -> None:
    scale = linear(values, zero=zero)
    assert scale.low < scale.high
    assert all(-1e-6 <= scale(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks) <= 12
    assert all(before < after for before, after in pairwise(scale.ticks))
    assert len(scale.labels()) == len(scale.ticks)


@given(st.lists(st.integers(min_value=0, max_value=10**7), min_size=1, max_size=30))
@example([0, 9])
def test_an_axis_of_steps_ends_at_the_steps_and_counts_in_whole_numbers(steps: list[int]) -> None:
    scale = linear(steps, whole=True)
    assert all(tick == round(tick) for tick in scale.ticks)
    if len(set(steps)) > 1:
        assert (scale.low, scale.high) == (min(steps), max(steps))


@given(st.lists(st.floats(min_value=1e-12, max_value=1e12), min_size=3, max_size=30), st.floats(21, 1e9))
def test_a_logarithmic_axis_holds_every_value_at_round_ends(values: list[float], factor: float) -> None:
    values.append(statistics.median_high(values) * factor)
    scale = logarithmic(values)
    assert all(-0.01 <= scale(value) <= 1.01 for value in values)
    assert len(scale.ticks) >= 2
    for end in (scale.low, scale.high):
        assert round(float(f"{end:.6e}".partition("e")[0]), 4) in {1, 2, 5}


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (0.5, 2.1, ["0.5", "1.0", "1.5", "2.0", "2.5"]),
        (0.0, 0.0005, ["0", "2e-4", "4e-4", "6e-4"]),
        (0.0, 50_000.0, ["0", "20 k", "40 k", "60 k"]),
        (-2.0, 2.0, ["-2", "-1", "0", "1", "2"]),
    ],
)
def test_ticks_are_written_with_the_digits_that_tell_them_apart(low: float, high: float, labels: list[str]) -> None:
    assert linear([low, high]).labels() == labels


@pytest.mark.parametrize(("value", "expected"), [(0.9, 1), (1, 1), (1.1, 2), (2.2, 2.5), (3, 5), (7, 10), (0.03, 0.05)])
def test_nice_numbers(value: float, expected: float) -> None:
    assert nice(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.6, "12,346"),
        (0.84182, "0.8418"),
        (2.5e-4, "2.5e-4"),
        (1e-12, "1e-12"),
        (math.nan, "not finite"),
        (-3.0, "-3"),
        (1000, "1,000"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert short(value) == text


def test_only_values_that_differ_much_get_a_logarithmic_axis() -> None:
    assert spread([1.0, 1.2, 0.9, 30.0])
    assert not spread([1.0, 1.2, 0.9, 10.0])
    assert not spread([1.0, 0.0, 1.0, 100.0])  # 0 has no place on it
    assert not spread([])


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60), st.integers(1, 21))
def test_the_smooth_line_is_the_mean_of_the_window_without_nan(values: list[float], window: int) -> None:
    half = window // 2
    for index, found in enumerate(smooth(values, window, range(len(values)))):
        near = [value for value in values[max(0, index - half) : index + half + 1] if not math.isnan(value)]
        assert math.isnan(found) if not near else found == pytest.approx(statistics.fmean(near), abs=1e-6)


def test_on_a_logarithmic_axis_the_mean_is_geometric() -> None:
    assert smooth([1.0, 10.0, 100.0], 3, [1], log=True) == [pytest.approx(10)]


def test_a_long_line_is_thinned_and_keeps_its_peaks_its_ends_and_its_gaps() -> None:
    x = list(range(100_000))
    y = [1.0] * 100_000
    y[1234], y[77_777], y[50_000] = 9.0, -9.0, math.nan
    steps, values = thin(x, y, BUCKETS)
    assert len(steps) <= 3 * BUCKETS + 2
    assert (steps[0], steps[-1]) == (0, 99_999)
    kept = dict(zip(steps, values, strict=True))
    assert (kept[1234], kept[77_777]) == (9.0, -9.0)
    assert math.isnan(kept[50_000])
    assert steps == sorted(steps)


def test_a_short_line_is_drawn_point_by_point_where_its_values_lie() -> None:
    drawn = chart(Line("loss", series(2.0, 1.0, 1.5)))
    assert points(drawn) == [(0, 0), (500, 1000), (1000, 500)]
    assert drawn.count("<circle") == 3
    assert 'aria-label="Loss: loss from 2 at step 1 to 1.5 at step 3, lowest 1, highest 2"' in drawn


def test_a_noisy_line_is_smoothed_and_drawn_faintly_itself() -> None:
    drawn = chart(Line("loss", series(*[1.0, 3.0] * 50)))
    low, high = min(y for _, y in points(drawn)), max(y for _, y in points(drawn))
    assert high - low < 600
    assert {y for _, y in points(drawn, faint=True)} == {0, 1000}
    assert "mean of 5" in drawn
    assert "faint" not in chart(Line("learning rate", series(*[1.0, 3.0] * 50), noisy=False))


def test_what_is_not_finite_is_a_gap_and_is_said() -> None:
    drawn = chart(Line("loss", series(1.0, math.nan, 2.0, 3.0)))
    path = re.search(r'<path d="([^"]*)"', drawn)
    assert path
    assert path[1].count("M") == 2
    assert "loss was not finite at 1 of 4 logged steps: 2." in drawn
    empty = chart(Line("loss", series(math.nan, math.nan)))
    assert "There is no finite value to draw." in empty
    assert "<path" not in empty


def test_a_line_without_points_is_no_chart() -> None:
    assert draw(Chart("Loss", [Line("loss", Series())])) is None


@pytest.mark.parametrize("value", [0.0, 1.0, -5.0, 1e-300, 1e299])
def test_one_value_alone_is_a_dot(value: float) -> None:
    assert chart(Line("loss", series(value))).count("<circle") == 1


def test_each_value_can_be_read_by_pointing_and_from_the_table() -> None:
    drawn = chart(Line("training", series(2.0, 1.5, 1.0)), Line("held out", Series([3], [1.25])))
    assert "<title>step 2: training 1.5</title>" in drawn
    assert "<title>step 3: training 1, held out 1.25</title>" in drawn
    assert '<th scope="row">3</th><td>1</td><td>1.25</td>' in drawn


def test_a_long_line_has_titles_for_parts_and_stays_small() -> None:
    drawn = chart(Line("loss", series(*(math.sin(step / 9) for step in range(20_000)))))
    assert drawn.count('class="strip"') == STRIPS
    assert len(drawn) < 60_000


def test_marks_are_drawn_where_they_lie_on_the_axis() -> None:
    drawn = chart(Line("loss", series(2.0, 1.5, 1.0)), marks=[(2, "went on from step 2"), (9, "not here")])
    assert 'x1="50%"' in drawn
    assert "went on from step 2" in drawn
    assert "not here" not in drawn


def test_a_scale_maps_its_ends_to_0_and_1() -> None:
    assert [Scale(1, 100, (), log=True)(value) for value in (1, 10, 100)] == [0, pytest.approx(0.5), 1]
