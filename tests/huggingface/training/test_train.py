"""What the trainer is given."""

from __future__ import annotations

from typing import Any

import pytest

from forge.api import Data
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
