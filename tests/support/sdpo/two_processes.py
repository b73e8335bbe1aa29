"""SDPO steps on each of several processes; writes what came of them. Started by torch.distributed.run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from support.sdpo.worlds import fixed_rollouts, load, trainer

CASES = [(32, "token-mean"), (8, "sequence-mean")]
"""Rollouts in a step, and the aggregation. With 8 the only group is divided between two processes."""


def step(folder: Path, rollouts: int, aggregation: str) -> dict[str, Any]:
    """Take a step; return its gradient norm and loss, and the teacher's prompt of every rollout."""
    made = trainer(
        folder,
        load(folder),
        rollouts=fixed_rollouts,
        settings={"aggregation": aggregation},
        per_device_train_batch_size=rollouts // int(os.environ.get("WORLD_SIZE", "1")),
    )
    prompts: list[Any] = []
    build = made._teacher_prompts

    def watch(scores: Any) -> Any:
        found = build(scores)
        prompts.extend(zip(scores.prompts, scores.completion_ids, found, strict=True))
        return found

    made._teacher_prompts = watch
    made.train()
    log = made.state.log_history[0]
    teachers = {json.dumps([prompt, ids]): teacher for prompt, ids, teacher in gather_object(prompts)}
    return {"processes": made.accelerator.num_processes, "teachers": teachers} | {
        name: log[name] for name in ("grad_norm", "loss")
    }


if __name__ == "__main__":
    found = [step(Path(sys.argv[1]), *case) for case in CASES]
    if os.environ["RANK"] == "0":
        (Path(sys.argv[1]) / "found.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    # Taking gloo's threads down now and then ends a process in std::terminate ("without an active exception": 1 of 24
    # on a busy machine, torch 2.13), after all that is tested here is done and written.
    sys.stdout.flush()
    os._exit(0)
