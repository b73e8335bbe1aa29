"""An evaluation as a table."""

from __future__ import annotations

from forge.text.evaluation import measured


def test_the_table_shows_models_side_by_side() -> None:
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8, "share": True}
    loss = {"value": 2.25, "low": 2.0, "high": 2.5, "n": 8, "share": False}
    rows = measured(
        {
            "loss": {"base": loss, "tuned": {**loss, "value": 1.0}, "difference": {**loss, "value": -1.25}},
            "f1": {"tuned": share},
        }
    )
    assert rows == [
        ["metric", "base", "tuned", "tuned - base", "rows"],
        ["loss", "2.25 [2, 2.5]", "1 [2, 2.5]", "-1.25 [+2, +2.5]", "8"],
        ["f1", "-", "50 % [25, 75]", "-", "8"],
    ]
