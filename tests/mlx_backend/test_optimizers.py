"""Every optimizer makes the steps of torch's, transformers' or bitsandbytes' own, as transformers' trainer sets it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from forge_mlx.rules.keys import OPTIMIZERS
from support.mlx import NEEDED

pytestmark = NEEDED

OPTIONS: dict[str, Any] = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.99,
    "adam_epsilon": 1e-8,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
}
SHAPES = {"layer.weight": (6, 4), "layer.bias": (6,), "input_norm.weight": (4,)}


def theirs(name: str, folder: Any, parameters: dict[str, torch.nn.Parameter]) -> Any:
    """Return the optimizer that transformers' trainer makes, with the decay of each weight."""
    from transformers import Trainer, TrainingArguments

    values = {key: value for key, value in OPTIONS.items() if key != "weight_decay"}
    kind, named = Trainer.get_optimizer_cls_and_kwargs(
        TrainingArguments(output_dir=str(folder), optim=name, use_cpu=True, report_to="none", **values)
    )
    decayed = [parameters["layer.weight"]]
    others = [each for key, each in parameters.items() if key != "layer.weight"]
    groups = [{"params": decayed, "weight_decay": OPTIONS["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return kind(groups, **named)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_steps_are_those_of_the_optimizer_of_that_name(tmp_path: Any, name: str) -> None:
    import mlx.core as mx

    from forge_mlx.training.optimizers import optimizer_of

    if "paged" in name or "lion" in name:
        pytest.importorskip("bitsandbytes")
    dice = torch.Generator().manual_seed(0)
    parameters = {key: torch.nn.Parameter(torch.randn(shape, generator=dice)) for key, shape in SHAPES.items()}
    weights = {key: mx.array(value.detach().numpy()) for key, value in parameters.items()}
    other, mine = theirs(name, tmp_path, parameters), optimizer_of({**OPTIONS, "optim": name})
    for count in range(1, 8):
        for value in parameters.values():
            value.grad = torch.randn(value.shape, generator=dice)
        for group in other.param_groups:
            group["lr"] = 0.01 / count
        gradients = {key: mx.array(value.grad.numpy()) for key, value in parameters.items() if value.grad is not None}
        weights = mine.step(weights, gradients, 0.01 / count, count)
        other.step()
        for key, value in parameters.items():
            np.testing.assert_allclose(np.array(weights[key]), value.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_lion_follows_the_sign_of_its_mean() -> None:
    import mlx.core as mx

    from forge_mlx.training.optimizers import optimizer_of

    mine = optimizer_of({**OPTIONS, "optim": "lion_32bit"})
    weights = {"layer.weight": mx.array([[2.0, -1.0, 0.5]])}
    first = mine.step(weights, {"layer.weight": mx.array([[3.0, -0.1, 0.0]])}, 0.01, 1)
    expected = np.array([[2.0, -1.0, 0.5]]) * (1 - 0.01 * 0.1) - 0.01 * np.array([[1.0, -1.0, 0.0]])
    np.testing.assert_allclose(np.array(first["layer.weight"]), expected, rtol=1e-6)
    np.testing.assert_allclose(np.array(mine.state["layer.weight.mean"]), [[0.03, -0.001, 0.0]], rtol=1e-5)
