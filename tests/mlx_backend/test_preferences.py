"""The losses of dpo are TRL's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from forge_mlx.rules.keys import LOSSES
from support.mlx import NEEDED, both, pairs
from support.projects import merged

if TYPE_CHECKING:
    from support.projects import Project

pytestmark = NEEDED

BETA, SMOOTH = 0.5, 0.1
LOG2 = math.log(2)
UNTRAINED = {
    "aot": LOG2,
    "aot_unpaired": LOG2,
    "apo_down": 1.0,
    "apo_zero": 1.0,
    "bco_pair": 2 * LOG2,
    "discopop": (LOG2 + 1) / 2,
    "exo_pair": -LOG2 - (math.log(1 - SMOOTH) + math.log(SMOOTH)) / 2,
    "hinge": 1.0,
    "ipo": 1.0,
    "nca_pair": 2 * LOG2,
    "robust": LOG2,
    "sft": 2.0,
    "sigmoid": LOG2,
    "sigmoid_norm": LOG2,
    "sppo_hard": 2.0,
}
"""What each gives where nothing was gained yet, by its definition, with the values above."""


def test_a_model_that_gained_nothing_yet_has_the_loss_of_the_definition() -> None:
    import mlx.core as mx

    from forge_mlx.training import preferences

    assert preferences.LOSSES.keys() == LOSSES["dpo"] == UNTRAINED.keys()
    nothing, likely, tokens = mx.zeros((2,)), mx.array([-4.0, -16.0]), mx.array([4, 6])
    pairs = preferences.Pairs(nothing, nothing, likely, likely, tokens, tokens, BETA, SMOOTH, 0.05)
    found = {name: loss(pairs).tolist() for name, loss in preferences.LOSSES.items()}
    assert found == {name: pytest.approx([value] * 2, rel=1e-6) for name, value in UNTRAINED.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        *({"loss_type": name} for name in sorted(LOSSES["dpo"] - {"sigmoid"})),
        {"loss_type": ["sigmoid", "sft", "bco_pair"], "loss_weights": [0.8, 0.3, 0.2]},
    ],
    ids=lambda changes: "-".join([changes["loss_type"]] if isinstance(changes["loss_type"], str) else ["several"]),
)
def test_a_loss_is_trls(llama: Project, changes: dict[str, Any]) -> None:
    pairs(llama)
    more = {"label_smoothing": SMOOTH} if changes["loss_type"] in ("aot", "aot_unpaired", "exo_pair", "robust") else {}
    train = {"method": "dpo", "max_steps": 8, "save_steps": 8, "learning_rate": 1e-2, **changes, **more}
    mine, theirs = both(llama, **merged({"train": train}, {"data": {"path": "pairs.jsonl", "eval_size": 4}}))
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-4, abs=1e-5)
    assert mine.losses[0] == pytest.approx(theirs.losses[0], rel=1e-5)
    told = [[event["mean_token_accuracy"] for event in each.of_kind("step")] for each in (mine, theirs)]
    assert told[0] == pytest.approx(told[1], abs=1e-6)
