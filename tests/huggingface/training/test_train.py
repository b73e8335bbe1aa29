"""What the trainer is given."""

from __future__ import annotations

from typing import Any

import pytest

from forge.api import Data
from forge_huggingface.training.save import final_metrics
from forge_huggingface.training.train import held_out


@pytest.mark.parametrize(
    ("sets", "given"),
    [
        ({}, None),
        ({"eval": [1]}, [1]),
        ({"spoken": [1]}, [1]),
        ({"spoken": [1], "written": [2]}, {"spoken": [1], "written": [2]}),
    ],
)
def test_a_single_held_out_set_is_used_whatever_its_name(sets: dict[str, Any], given: Any) -> None:
    assert held_out(Data(processor=None, train=[], eval=sets, layout="tokens", digest="")) == given


def test_the_last_numbers_are_kept_as_far_as_they_are_numbers() -> None:
    """A training that has diverged has weights all the same, and they are recorded in JSON, which has no NaN."""
    history = [{"loss": 2.0, "reward": None}, {"loss": float("nan"), "eval_loss": 1.0}, {"train_loss": float("inf")}]
    assert final_metrics(history) == {"loss": 2.0, "eval_loss": 1.0}
