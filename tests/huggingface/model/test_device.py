"""Where weights are read onto."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from forge.api import Run
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.machine.presets import PRESETS
from forge_huggingface.model.device import reading_device
from support.measuring import llama
from support.planning import planner

GIB = 2**30
FULL = """
name = "job"
[model]
id = "m"
[data]
path = "rows.jsonl"
[adapter]
type = "none"
[use]
backend = "huggingface"
[train]
per_device_train_batch_size = 1
gradient_accumulation_steps = 8
gradient_checkpointing = true
"""


@pytest.mark.parametrize(("card", "onto"), [(24, "cpu"), (140, "cuda:0")])
def test_a_gpu_that_holds_a_part_is_read_onto_if_it_has_room_for_all_of_it(
    catalogue: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: int, onto: str
) -> None:
    """That there is a GPU is pretended: this machine may have none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    one = replace(PRESETS["linux-cuda"].accelerators[0], memory=card * GIB)
    machine = replace(PRESETS["linux-cuda"], accelerators=(one,) * 8, memory=512 * GIB)
    plan = planner(catalogue)(f'{FULL}\n[launch]\nshard = "full"\n', machine, llama("8b"))
    assert plan.launch.world_size == 8
    assert plan.estimate is not None
    assert plan.estimate.fits
    run = Run(folder=tmp_path, plan=plan)
    run.group.size = 8
    assert reading_device(settle(load_job(plan.job), plan.decisions), run) == onto
