"""What processes that train together send each other beside gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from forge_huggingface.training.together import share_gradients, together


@pytest.mark.parametrize(("layer", "sent"), [(torch.nn.LayerNorm(2), False), (torch.nn.BatchNorm1d(2), True)])
def test_only_statistics_that_training_changes_are_sent_in_each_forward(layer: torch.nn.Module, sent: bool) -> None:
    launch = SimpleNamespace(shard="none", timeout=60)
    job = SimpleNamespace(train=SimpleNamespace(options={"gradient_accumulation_steps": 2}), launch=launch)
    values = together(cast(Any, job), cast(Any, SimpleNamespace(world_size=2)), torch.nn.Sequential(layer))
    assert values["ddp_broadcast_buffers"] is sent


def test_gradients_lie_where_they_are_summed_up() -> None:
    from accelerate import DistributedDataParallelKwargs

    handler = DistributedDataParallelKwargs(find_unused_parameters=False)
    share_gradients(SimpleNamespace(accelerator=SimpleNamespace(ddp_handler=handler)))
    assert handler.to_kwargs()["gradient_as_bucket_view"] is True
    share_gradients(SimpleNamespace(accelerator=SimpleNamespace(ddp_handler=None)))  # of one process
